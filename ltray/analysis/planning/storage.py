"""How many bytes a run leaves in its root."""

from collections.abc import Mapping

from ltray.analysis.planning.work import packs_left
from ltray.data.expected import ExpectedImages
from ltray.experiment import Data, Experiment
from ltray.lottery.mask_names import masks_of
from ltray.models.sizes import Sizes

# JPEG of quality 90 at 227 pixels, mean over ImageNet: 18.7 kB.
JPEG_BYTES_PER_PIXEL = 18_700 / 227**2


def stored_bytes(experiment: Experiment, images: ExpectedImages, sizes: Sizes) -> Mapping[str, int]:
    """What of a finished run takes how many bytes, the largest kinds of file alone.

    Raw shards are taken as they are before compression.
    """
    reset_points = {0.0, *experiment.reset.epochs, float(experiment.train.epochs)}
    replicates, masks = experiment.replicates, len(masks_of(experiment))
    tickets = sum(len(pack.tickets) for pack in packs_left(experiment))
    answers = (images.validation + images.test) // 8
    return {
        "shards": int(images.stored * _image_bytes(experiment.data)),
        "trajectories": replicates * len(reset_points) * sizes.state_bytes,
        "masks": replicates * masks * sizes.prunable_weights // 8,
        "tickets": tickets * (sizes.weights_bytes + answers),
    }


def _image_bytes(data: Data) -> float:
    assert data.image_size is not None, "the data's keys are filled in"
    assert isinstance(data.channels, int), "the data's keys are filled in"
    pixels = data.image_size**2
    return pixels * data.channels if data.encoding == "raw" else pixels * JPEG_BYTES_PER_PIXEL
