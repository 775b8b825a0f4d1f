"""An experiment's images as batches of normalised tensors on a device.

B images, C channels, S x S pixels as the network sees them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ltray.data.augment import centre_crops, training_crops
from ltray.data.copies_to_device import on_device
from ltray.data.images import Images, ResidentImages, open_images, resident_budget
from ltray.data.manifest import Manifest
from ltray.data.selection import Labelled, Selection, select
from ltray.experiment import Data, steps_per_epoch
from ltray.group import ALONE, Group
from ltray.layout import DataFolder
from ltray.randomness import hashes, permutation, seed_for

WINDOW_PARTS = 32
LARGEST_EVALUATED = 512  # images
READ_AHEAD = 2  # batches that are ready before they are asked for
EXPECTED_AHEAD = 16  # batches whose shards are being read

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Split:
    """Images and labels of train, validation or test.

    Attributes:
        labels: [N] int64 on the device.
        parts: [N] the shard part that each image lies in.
    """

    images: Images
    labels: torch.Tensor
    parts: NDArray[np.int64]

    @property
    def size(self) -> int:
        return len(self.parts)


@dataclass(frozen=True)
class DataSet:
    """An experiment's three splits on a device; the same for all seeds.

    Attributes:
        side: pixels a side of the stored images.
        mean, std: [C], subtracted from and divided into pixels from 0 to 255.
    """

    data: Data
    train: Split
    validation: Split
    test: Split
    side: int
    mean: torch.Tensor
    std: torch.Tensor
    classes: int


def open_data_set(  # noqa: PLR0913, PLR0917 (where from, which, and where to)
    folder: DataFolder,
    manifest: Manifest,
    data: Data,
    device: torch.device,
    threads: int,
    images: int | None = None,
) -> DataSet:
    """Open an experiment's splits: resident on the device if all fit its budget, else streamed.

    Args:
        images: decide as if there were so many.
    """
    selection: Selection = select(folder, manifest, data)
    every = (selection.train, selection.validation, selection.test)
    pixels = manifest.pixels
    per_image = pixels.image_size**2 * pixels.channels
    if images is None:
        images = sum(len(one.rows) for one in every)
    resident = per_image * images <= resident_budget(device)

    def split(labelled: Labelled) -> Split:
        images = open_images(folder, manifest, labelled, device, threads, resident)
        return Split(images, torch.from_numpy(labelled.labels).to(device), labelled.parts)

    mean, std = normalisation(manifest)
    return DataSet(
        data=data,
        train=split(selection.train),
        validation=split(selection.validation),
        test=split(selection.test),
        side=pixels.image_size,
        mean=torch.tensor(mean, device=device),
        std=torch.tensor(std, device=device),
        classes=selection.classes,
    )


def normalisation(manifest: Manifest) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation that make pixels into what a network sees.

    Colour images are standardised per channel by the train shards' own statistics, as is usual for
    CIFAR-10 and ImageNet. Grey ones only become 0 to 1, as in the first lottery-ticket papers: an
    empty background stays exactly zero.
    """
    if manifest.pixels.channels == 1:
        return (0.0,), (255.0,)
    return manifest.pixel_mean, manifest.pixel_std


class Batches:
    """Training batches in the order of one data_seed, and evaluation batches.

    Each process of a group gets its part of every training batch and of every split: images, their
    order and their crops are those that one process alone has at these positions.
    """

    def __init__(
        self, data_set: DataSet, batch_size: int, data_seed: int, group: Group = ALONE
    ) -> None:
        self.group = group
        self._set = data_set
        self._batch_size = batch_size
        self._data_seed = data_seed
        self.classes = data_set.classes
        self.steps_per_epoch = steps_per_epoch(data_set.train.size, batch_size)

    def epoch(self, epoch: int, first: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The epoch's batches from number `first` to before `stop`.

        Yields:
            images [B, C, S, S] float32 in channels-last layout, labels [B] int64.
        """
        order = epoch_order(self._set.train.parts, self._data_seed, epoch)
        steps = range(first, self.steps_per_epoch if stop is None else stop)
        spans = [self._span(step, len(order)) for step in steps]
        images = partial(self._training_images, epoch, order)
        if not isinstance(self._set.train.images, ResidentImages):
            made = self._read_ahead(images, order, spans)
        else:
            made = map(images, spans)
        labels = self._set.train.labels
        labels = labels.index_select(0, on_device(order, labels.device))
        for span, batch in zip(spans, made, strict=True):
            yield self._normalised(batch), labels[span]

    def evaluation(self, split: str) -> Iterator[Batch]:
        """All images of `validation` or `test` in fixed order; the last batch may be short.

        No batch is larger than one of training: what has memory for that has it for these.
        """
        chosen = self._set.validation if split == "validation" else self._set.test
        part = self.group.part(range(chosen.size))
        most = min(LARGEST_EVALUATED, max(1, self._batch_size // self.group.size))
        for first in part[::most]:
            positions = np.arange(first, min(first + most, part.stop))
            crops = centre_crops(len(positions), self._set.side, self._crop_size)
            images = chosen.images.take(positions, crops, self._crop_size)
            yield self._normalised(images), chosen.labels[first : first + len(positions)]

    def _span(self, step: int, images: int) -> slice:
        """Where this process's images of a batch stand in the epoch's order."""
        first = step * self._batch_size
        part = self.group.part(range(first, min(first + self._batch_size, images)))
        return slice(part.start, part.stop)

    def _read_ahead(
        self,
        images: Callable[[slice], torch.Tensor],
        order: NDArray[np.int64],
        spans: Sequence[slice],
    ) -> Iterator[torch.Tensor]:
        """Batches made on a thread of their own, a few ahead of the one in use."""
        ahead: deque[Future[torch.Tensor]] = deque()
        with ThreadPoolExecutor(1) as reader:
            for number, span in enumerate(spans):
                for expected in spans[number : number + EXPECTED_AHEAD]:
                    self._set.train.images.expect(order[expected])
                ahead.append(reader.submit(images, span))
                if len(ahead) > READ_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _training_images(self, epoch: int, order: NDArray[np.int64], span: slice) -> torch.Tensor:
        """One batch, uint8 [B, S, S, C]."""
        chosen = order[span]
        positions = np.arange(span.start, span.start + len(chosen))
        crops = training_crops(
            self._set.data.augment,
            self._set.side,
            self._crop_size,
            self._data_seed,
            epoch,
            positions,
        )
        return self._set.train.images.take(chosen, crops, self._crop_size)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        on_device = images.to(self._set.mean.device, non_blocking=True)
        return ((on_device.float() - self._set.mean) / self._set.std).permute(0, 3, 1, 2)

    @property
    def _crop_size(self) -> int:
        size = self._set.data.crop_size
        assert size is not None, "resolve() fills crop_size"
        return size


def epoch_order(parts: NDArray[np.int64], data_seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch: positions of the train images, from (data_seed, epoch) alone.

    Parts are shuffled into windows of 32, and the images of a window are shuffled among each
    other, so that reading needs two windows at a time. The rows of a part are a random sample of
    all classes already, and up to 32 parts (65,536 small images) it is a plain permutation.

    Args:
        parts: [N] the part that each image lies in.
    """
    numbers, group = np.unique(parts, return_inverse=True)
    rank = np.argsort(permutation(seed_for(data_seed, "parts", epoch), len(numbers)))
    within = hashes(seed_for(data_seed, "order", epoch), np.arange(len(parts)))
    return np.lexsort((within, rank[group] // WINDOW_PARTS))
