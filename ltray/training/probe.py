"""What an experiment's steps take in this process, tried for a few seconds on made-up images.

K tickets, B images, C channels, H W pixels.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from torch import nn

from ltray.data.batches import Batch, Batches, open_data_set
from ltray.data.expected import ExpectedImages
from ltray.data.made_up import PHOTOGRAPH, MadeUp, made_up_shards
from ltray.data.pixels import Pixels
from ltray.experiment import Data, Experiment, decimal, steps_per_epoch
from ltray.layout import DataFolder
from ltray.lottery.criteria import magnitude
from ltray.lottery.masks import Mask, make_mask, save_mask
from ltray.lottery.ready import pack_size
from ltray.lottery.snapshot import Snapshot, save_snapshot
from ltray.models.networks import build
from ltray.models.prunable import output_layer, prunable
from ltray.own_code import OwnCode
from ltray.training.backends.choice import may_be_csr, open_backend
from ltray.training.backends.trial import choose
from ltray.training.evaluation import evaluate
from ltray.training.network import Network
from ltray.training.place import Place, memory_for_pack
from ltray.training.recipe import Recipe
from ltray.training.tried import Kind, Tried, seconds_of, stretch_of, train_step

LONG_STEP_SECONDS = 0.3  # of one network; longer ones are tried with fewer images
FEWEST_IMAGES = 2  # BatchNorm cannot train on a single value
LONG_PACK_STEP_SECONDS = 1.0  # of a pack; longer ones are tried with fewer tickets
STRETCHES = 4
EVALUATED = 256  # images of each split, and no more batches than these:
EVALUATED_BATCHES = 4


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        device: as in the column of tickets.parquet.
        batch_size: images a step that were tried; fewer than the experiment's where that is slow.
        dense: the dense run.
        tickets: sparsity -> its pack.
        batch_seconds: of reading and augmenting the experiment's batch, of several stretches.
        image_seconds: CPU seconds of preparing one image.
        mask_seconds: of making one mask and writing it.
        state_seconds: of writing one network's state to this machine's temporary folder.
    """

    device: str
    batch_size: int
    dense: Tried
    tickets: Mapping[float, Tried]
    batch_seconds: tuple[float, ...]
    image_seconds: float
    mask_seconds: float
    state_seconds: float


def probe(
    experiment: Experiment, images: ExpectedImages, network: OwnCode | None, place: Place
) -> Probe:
    """Try an experiment's training where this process is.

    Args:
        experiment: with image sizes, channels and seeds filled in.
        images: that it is expected to have.
        network: a person's own, which is read from here and not from the file that arch names.

    Raises:
        LtrayError: the network cannot be built, or the backend cannot train it.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _Probing(experiment, images, network, place, Path(folder)).found()


class _Probing:
    def __init__(
        self,
        experiment: Experiment,
        images: ExpectedImages,
        network: OwnCode | None,
        place: Place,
        folder: Path,
    ) -> None:
        if network is not None:
            copy = folder / "network.py"
            copy.write_bytes(network.content)
            model = experiment.model.model_copy(update={"arch": f"{copy}:{network.function}"})
            experiment = experiment.model_copy(update={"model": model})
        self.experiment = experiment
        self.images = images
        self.place = place
        self.folder = folder
        self.model = self._model()

    def found(self) -> Probe:
        batch_size = self._bearable_batch()
        self._make_images(batch_size)
        self.batches, self.recipe = self._with_batches_of(batch_size)
        levels = self._levels()
        dense = self._network({})
        state = self.folder / "state.safetensors"
        mask_seconds = seconds_of(lambda: save_mask(self.folder / "mask", self._mask(levels[-1])))
        state_seconds = seconds_of(lambda: save_snapshot(state, dense.snapshot()))
        opened = [
            *(partial(self._opened, self._tickets(level)) for level in levels),
            partial(self._opened, [lambda: dense], wanted="loop"),
        ]
        *tickets, tried_dense = self._tried(opened)
        return Probe(
            device=self.place.device_name,
            batch_size=self.recipe.train.batch_size,
            dense=tried_dense,
            tickets=dict(zip(levels, tickets, strict=True)),
            batch_seconds=tuple(self._scale * each for each in self.reading),
            image_seconds=self.image_seconds,
            mask_seconds=mask_seconds,
            state_seconds=state_seconds,
        )

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The prunable tensors."""
        names = prunable(self.model, self.experiment.prune.keep_dense)
        parameters = dict(self.model.named_parameters())
        return {name: parameters[name].detach().cpu() for name in names}

    @property
    def _scale(self) -> float:
        """How many of the tried batches have as many images as one of the experiment."""
        return self.experiment.train.batch_size / self.recipe.train.batch_size

    def _model(self) -> nn.Module:
        data = self.experiment.data
        assert isinstance(data.channels, int), "the data's keys are filled in"
        assert data.crop_size is not None, "the data's keys are filled in"
        arch, classes = self.experiment.model.arch, self.images.classes
        model = build(arch, classes, data.channels, data.crop_size, seed=0)
        return model.to(self.place.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _make_images(self, batch_size: int) -> None:
        """Shards of made-up images: two batches to train on, and some to evaluate."""
        data = self.experiment.data
        assert data.image_size is not None, "the data's keys are filled in"
        assert isinstance(data.channels, int), "the data's keys are filled in"
        train = min(self.images.train, 2 * batch_size)
        evaluated = min(EVALUATED, EVALUATED_BATCHES * batch_size)
        held_out = min(self.images.validation, evaluated)
        large = self.images.encoded and data.image_size >= 64
        channels: Literal[1, 3] = 1 if data.channels == 1 else 3
        source = MadeUp(
            counts=(("train", train + held_out), ("test", min(self.images.test, evaluated))),
            classes=self.images.classes,
            shape=PHOTOGRAPH if large else (data.image_size, data.image_size),
            channels=channels,
            encoded=self.images.encoded,
        )
        assert data.encoding != "auto", "the data's keys are filled in"
        pixels = Pixels(data.image_size, data.resize, data.encoding, channels)
        made = DataFolder(self.folder / "data")
        made_up_shards(made, replace(source, counts=(("train", 16), ("test", 1))), pixels)
        made = DataFolder(self.folder / "shards")
        started = time.process_time()
        self.manifest = made_up_shards(made, source, pixels)
        count_made = sum(self.manifest.counts.values())
        self.image_seconds = (time.process_time() - started) / count_made
        self.shards, self.held_out = made, held_out / (train + held_out)

    def _with_batches_of(self, batch_size: int) -> tuple[Batches, Recipe]:
        train = self.experiment.train.model_copy(update={"batch_size": batch_size})
        taken = {"validation_fraction": self.held_out, "classes": "all", "train_limit": None}
        data: Data = self.experiment.data.model_copy(update=taken)
        whole = self.images.train + self.images.validation + self.images.test
        place = self.place
        opened = open_data_set(
            self.shards, self.manifest, data, place.device, place.threads, images=whole
        )
        batches = Batches(opened, batch_size, data_seed=0)
        return batches, Recipe(train, batches.steps_per_epoch)

    def _bearable_batch(self) -> int:
        """The experiment's, or as many images as one network trains on in a bearable time."""
        wanted = min(self.experiment.train.batch_size, self.images.train)
        tried = min(FEWEST_IMAGES, wanted)
        while True:
            seconds = self._step_seconds(tried)
            if tried == wanted or seconds > LONG_STEP_SECONDS / 2:
                self.step_seconds = seconds
                bearable = max(FEWEST_IMAGES, int(tried * LONG_STEP_SECONDS / seconds))
                return min(tried, bearable)
            tried = min(wanted, max(2 * tried, int(tried * LONG_STEP_SECONDS / seconds / 2)))

    def _step_seconds(self, batch_size: int) -> float:
        """Of one network's second step: the first pays for what is set up once."""
        data = self.experiment.data
        shape = (batch_size, data.channels, data.crop_size, data.crop_size)
        images = torch.zeros(*shape, device=self.place.device)  # type: ignore[arg-type]
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(batch_size, dtype=torch.long, device=self.place.device)
        self.recipe = Recipe(self.experiment.train, steps_per_epoch=1000)
        backend = open_backend("loop", (self._network({}),))
        train_step(backend, (images, labels))
        return seconds_of(lambda: train_step(backend, (images, labels)))

    def _levels(self) -> list[float]:
        """Sparsities to try: where kept weights alone are computed, how many there are matters."""
        levels = sorted(self.experiment.prune.sparsities)
        on_cpu = self.place.device.type == "cpu"
        if on_cpu and may_be_csr(self.experiment.sweep.backend, self.model):
            return sorted({levels[0], levels[len(levels) // 2], levels[-1]})
        return [levels[len(levels) // 2]]

    def _tickets(self, level: float) -> list[Callable[[], Network]]:
        bearable = max(2, int(LONG_PACK_STEP_SECONDS / self.step_seconds))
        mask = self._mask(level)
        return [lambda: self._network(mask)] * min(self._together(), bearable)

    def _together(self) -> int:
        """How many tickets of a pack are trained at a time, on average over its epochs.

        What a step takes however many there are is shared by fewer until the last has joined.
        """
        experiment = self.experiment
        if experiment.prune.style == "iterative" or experiment.prune.search == "matching":
            return 1  # one after the other, or each a trial of its own
        size = pack_size(experiment)
        if experiment.reset.schedule == "restart":
            return size
        epochs = [experiment.train.epochs - point for point in experiment.reset.epochs]
        return max(1, round(size * fmean(epochs) / max(epochs)))

    def _mask(self, level: float) -> Mask:
        prune, output = self.experiment.prune, output_layer(self.model)
        return make_mask(magnitude(self.weights), prune, 1 - decimal(level), output)

    def _network(self, mask: Mask) -> Network:
        model = self._model()
        start = Snapshot(step=0, model=dict(model.state_dict()))
        return Network("probe", model, start, mask, self.recipe, data_seed=0)

    def _tried(self, kinds: Sequence[Callable[[], Kind]]) -> list[Tried]:
        """Time all kinds in turn, several times, so that a fast moment or a slow one is no kind's.

        On a GPU, whose memory a pack may fill, one kind comes after the other.
        """
        on_cpu = self.place.device.type == "cpu"
        batches = self._endless()
        next(batches)
        self.reading: list[float] = []
        found = []
        for group in [kinds] if on_cpu else [[kind] for kind in kinds]:
            opened = [kind() for kind in group]
            for _ in range(STRETCHES):
                for one in opened:
                    one.time(self.batches)
                self.reading.append(stretch_of(lambda: next(batches)))
            found += [one.tried(self._scale) for one in opened]
        return found

    def _opened(self, make: Sequence[Callable[[], Network]], wanted: str | None = None) -> Kind:
        batch = next(self.batches.epoch(0, 0, 1))
        memory = memory_for_pack(self.place.device)
        started = time.perf_counter()
        choice = choose(wanted or self.experiment.sweep.backend, make, batch, memory, self._steps())
        networks = tuple(one() for one in make[: choice.fits])
        backend = open_backend(choice.backend, networks)
        train_step(backend, batch)
        start_seconds = time.perf_counter() - started
        evaluate([backend], self.batches)
        counts = self.manifest.counts
        evaluated = counts["test"] + round(counts["train"] * self.held_out)
        return Kind(choice.backend, backend, batch, start_seconds, evaluated)

    def _steps(self) -> int:
        """Of a whole training, so that choosing takes what it will; not on a GPU, where it would
        have compiled steps tried, which takes too long here."""
        if self.place.device.type != "cpu":
            return 0
        train = self.experiment.train
        return train.epochs * steps_per_epoch(self.images.train, train.batch_size)

    def _endless(self) -> Iterator[Batch]:
        for epoch in count():
            yield from self.batches.epoch(epoch)
