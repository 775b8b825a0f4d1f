"""How large a network and its files are."""

from dataclasses import dataclass

from ltray.experiment import Experiment
from ltray.models.networks import build
from ltray.models.prunable import prunable

MOMENTS = {"adam": 2, "adamw": 2}  # of each parameter, in the optimizer


@dataclass(frozen=True)
class Sizes:
    """Of one network.

    Attributes:
        weights_bytes: of its state_dict, which a ticket's file holds.
        state_bytes: of what it is while it trains, optimizer included.
        prunable_weights: how many weights a mask decides about.
    """

    weights_bytes: int
    state_bytes: int
    prunable_weights: int


def network_sizes(experiment: Experiment, classes: int) -> Sizes:
    """Build the network and measure it.

    Args:
        experiment: with sizes and channels filled in.

    Raises:
        LtrayError: it cannot be built.
    """
    data = experiment.data
    assert isinstance(data.channels, int), "the data's keys are filled in"
    assert data.crop_size is not None, "the data's keys are filled in"
    model = build(experiment.model.arch, classes, data.channels, data.crop_size, seed=0)
    train = experiment.train
    moments = int(train.momentum > 0) if train.optimizer == "sgd" else MOMENTS[train.optimizer]
    weights = sum(part.nbytes for part in model.state_dict().values())
    parameters = dict(model.named_parameters())
    trained = sum(part.nbytes for part in parameters.values())
    names = prunable(model, experiment.prune.keep_dense)
    return Sizes(
        weights_bytes=weights,
        state_bytes=weights + moments * trained,
        prunable_weights=sum(parameters[name].numel() for name in names),
    )
