"""Rows of the shards to uint8 crops on a device: resident when they fit, else streamed.

B images, H W pixels as stored, S crop_size, C channels.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Protocol
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray

from ltray import host
from ltray.data.augment import Crops, centre_crops, crop_many, crop_one
from ltray.data.copies_to_device import on_device
from ltray.data.manifest import Manifest, PartFile
from ltray.data.node_cache import on_this_node
from ltray.data.pixels import Pixels, from_stored
from ltray.data.selection import Labelled
from ltray.layout import DataFolder
from ltray.memory import keep_freed_memory
from ltray.tables import read_table

KEPT_PARTS = 64  # two windows of the order; a part of 512 images of 227 pixels is 10 MB
PARTS_READ_AT_ONCE = 2
DECODED_AT_ONCE = 512
MOST_BESIDE_A_GPU = 4  # threads; each decodes some 4,000 images of 227 pixels a second

Positions = NDArray[np.int64]


class Images(Protocol):
    """The images of one Labelled, taken by position in it."""

    def take(self, positions: Positions, crops: Crops, size: int) -> torch.Tensor:
        """[B, S, S, C] uint8: on the device, or in memory from which the device copies fast."""

    def expect(self, positions: Positions) -> None:
        """Tell which images are wanted soon."""


class ResidentImages:
    """All images decoded once and kept on the device."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    def take(self, positions: Positions, crops: Crops, size: int) -> torch.Tensor:
        index = on_device(positions, self._images.device)
        return crop_many(self._images.index_select(0, index), crops, size)

    def expect(self, positions: Positions) -> None:
        """They are here."""


class EncodedImages:
    """The stored bytes of a Labelled, and threads that decode them image by image."""

    def __init__(
        self, parts: "EncodedParts", labelled: Labelled, pixels: Pixels, threads: int
    ) -> None:
        self.pixels = pixels
        self._parts = parts
        self._labelled = labelled
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def decode(self, positions: Positions, then: Callable[[int, NDArray[np.uint8]], None]) -> None:
        """Call with the number of each of the positions and its image [H, W, C], on any thread."""
        parts, rows = self._labelled.parts[positions], self._labelled.rows[positions]
        self._parts.expect(parts)
        places = zip(parts.tolist(), rows.tolist(), strict=True)
        blobs = [self._parts[part][row] for part, row in places]

        @torch.inference_mode()  # what autograd would note of each step costs a tenth of cropping
        def decode(numbers: range) -> None:
            for number in numbers:
                then(number, from_stored(blobs[number], self.pixels))

        shares = [range(first, len(blobs), self._threads) for first in range(self._threads)]
        for _ in self._pool.map(decode, shares):
            pass  # raises what a thread raised

    def expect(self, positions: Positions) -> None:
        """Begin to read the parts that these lie in."""
        self._parts.expect(self._labelled.parts[positions])


class StreamedImages:
    """Images read, decoded and cropped in host memory when they are asked for."""

    def __init__(self, encoded: EncodedImages) -> None:
        keep_freed_memory()
        self._encoded = encoded
        self._memory = BatchMemory()

    def take(self, positions: Positions, crops: Crops, size: int) -> torch.Tensor:
        made = self._memory.batch((len(positions), size, size, self._encoded.pixels.channels))

        def crop(number: int, image: NDArray[np.uint8]) -> None:
            whole = torch.from_numpy(_writable(image))
            crop_one(whole, crops.boxes[number], bool(crops.mirrored[number]), made[number])

        self._encoded.decode(positions, crop)
        return made

    def expect(self, positions: Positions) -> None:
        self._encoded.expect(positions)


class UploadedImages:
    """Images read and decoded in host memory when they are asked for, and cropped on a GPU.

    Python runs one thread at a time, and the one that tells the GPU what to do must not wait: here
    the others need it once an image, while cropping on them needs it ten times. Copying and
    cropping have a stream of their own, beside the training steps that the GPU was given before;
    those that it is given afterwards wait for them.
    """

    def __init__(self, encoded: EncodedImages, device: torch.device) -> None:
        self._encoded = encoded
        self._device = device
        self._stream = _stream_of(device) if device.type == "cuda" else None

    def take(self, positions: Positions, crops: Crops, size: int) -> torch.Tensor:
        side, channels = self._encoded.pixels.image_size, self._encoded.pixels.channels
        shape = (len(positions), side, side, channels)
        whole = torch.empty(shape, dtype=torch.uint8, pin_memory=self._stream is not None)
        places = whole.numpy()

        def keep(number: int, image: NDArray[np.uint8]) -> None:
            places[number] = image

        self._encoded.decode(positions, keep)
        if self._stream is None:
            return crop_many(whole, crops, size)
        training = torch.cuda.current_stream(self._device)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            made = crop_many(whole.to(self._device, non_blocking=True), crops, size)
        training.wait_stream(self._stream)
        made.record_stream(training)
        return made

    def expect(self, positions: Positions) -> None:
        self._encoded.expect(positions)


class BatchMemory:
    """Host memory for batches, used again when the batch that had it is gone.

    New memory costs a fifth of the time of decoding and cropping, since the kernel zeroes it.
    """

    def __init__(self) -> None:
        self._free: defaultdict[tuple[int, ...], list[NDArray[np.uint8]]] = defaultdict(list)

    def batch(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uint8 of this shape, with anything in it; every view of it keeps it."""
        free = self._free[shape]
        memory = free.pop() if free else np.empty(shape, dtype=np.uint8)
        lease = memoryview(memory.data)  # what every view of the batch holds on to
        finalize(lease, free.append, memory)
        return torch.frombuffer(lease, dtype=torch.uint8).view(shape)


class EncodedParts:
    """The stored images of a split, part by part; those last used are kept, encoded.

    Parts that are expected are read by threads of their own.
    """

    def __init__(self, read: Callable[[int], list[bytes]]) -> None:
        self._read = read
        self._kept: OrderedDict[int, Future[list[bytes]]] = OrderedDict()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(PARTS_READ_AT_ONCE)

    def __getitem__(self, number: int) -> list[bytes]:
        return self._part(number).result()

    def expect(self, numbers: Iterable[int] | Positions) -> None:
        """Begin to read what is not here, in order of first mention."""
        for number in dict.fromkeys(np.asarray(numbers).tolist()):
            self._part(number)

    def _part(self, number: int) -> Future[list[bytes]]:
        with self._lock:
            part = self._kept.get(number)
            if part is None or _failed(part):
                part = self._kept[number] = self._pool.submit(self._read, number)
            self._kept.move_to_end(number)
            if len(self._kept) > KEPT_PARTS:
                self._kept.popitem(last=False)
            return part


def open_images(  # noqa: PLR0913, PLR0917 (where from, which, and where to)
    folder: DataFolder,
    manifest: Manifest,
    labelled: Labelled,
    device: torch.device,
    threads: int,
    resident: bool,
) -> Images:
    """The images of a Labelled, decoded now if they are to be resident, else when taken."""
    files, pixels = manifest.parts[labelled.split], manifest.pixels
    parts = encoded_parts(folder, files)
    cropped_there = device.type == "cuda" and not resident
    most = MOST_BESIDE_A_GPU if cropped_there else threads
    encoded = EncodedImages(parts, labelled, pixels, max(1, min(threads, most)))
    if cropped_there:
        return UploadedImages(encoded, device)
    streamed = StreamedImages(encoded)
    if not resident:
        return streamed
    count, side = len(labelled.rows), pixels.image_size
    images = torch.empty((count, side, side, pixels.channels), dtype=torch.uint8, device=device)
    for first in range(0, count, DECODED_AT_ONCE):
        positions = np.arange(first, min(first + DECODED_AT_ONCE, count))
        whole = centre_crops(len(positions), side, side)
        images[first : first + len(positions)] = streamed.take(positions, whole, side)
    return ResidentImages(images)


def resident_budget(device: torch.device) -> int:
    """Bytes that a trial's resident images may fill.

    On a GPU half of what is free; on a CPU a quarter of the memory, shared by one process per CPU.
    Streamed images give the same bits, so it changes no result.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return host.memory() // 4 // host.cpus()


def encoded_parts(folder: DataFolder, files: Sequence[PartFile]) -> EncodedParts:
    """The parts of a split, read from this node's own copies where it keeps some."""

    def read(number: int) -> list[bytes]:
        path = on_this_node(folder.path / files[number].path, files[number].sha256)
        column: list[bytes] = read_table(path, ["image"])["image"].to_pylist()
        return column

    return EncodedParts(read)


def _stream_of(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _writable(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Raw images are views of bytes, which torch warns about though nothing writes to them."""
    return np.require(image, requirements="W")


def _failed(part: Future[list[bytes]]) -> bool:
    return part.done() and part.exception() is not None
