"""What images an experiment will have, as far as can be told without its source's own files."""

from dataclasses import dataclass

from ltray.data.archives.index import index_of
from ltray.data.archives.sources import open_source
from ltray.data.manifest import Manifest, read_manifest
from ltray.data.selection import image_counts
from ltray.errors import LtrayError
from ltray.experiment import TORCHVISION_PREFIX, Data, decimal, exact_count
from ltray.files import is_there
from ltray.layout import DataFolder


@dataclass(frozen=True)
class ExpectedImages:
    """The images of an experiment before they are prepared.

    Attributes:
        train, validation, test: how many the experiment will use.
        stored: how many the shards hold, or will hold.
        encoded: whether the source has image files, which have to be decoded, and not arrays.
        prepared: whether the shards are there.
        told_by: where the numbers come from, in words.
    """

    train: int
    validation: int
    test: int
    stored: int
    classes: int
    encoded: bool
    prepared: bool
    told_by: str


@dataclass(frozen=True)
class Release:
    """A data set as it was published.

    Attributes:
        image_size: pixels a side; None where images differ.
    """

    train: int
    test: int
    classes: int
    image_size: int | None
    channels: int
    more: int = 0  # images of other splits, which shards hold too


# ILSVRC's labelled val is its test here; its own test split, without labels, is stored too.
RELEASES = {
    "ilsvrc2012": Release(1_281_167, 50_000, 1000, None, 3, more=100_000),
    f"{TORCHVISION_PREFIX}MNIST": Release(60_000, 10_000, 10, 28, 1),
    f"{TORCHVISION_PREFIX}FashionMNIST": Release(60_000, 10_000, 10, 28, 1),
    f"{TORCHVISION_PREFIX}KMNIST": Release(60_000, 10_000, 10, 28, 1),
    f"{TORCHVISION_PREFIX}CIFAR10": Release(50_000, 10_000, 10, 32, 3),
    f"{TORCHVISION_PREFIX}CIFAR100": Release(50_000, 10_000, 100, 32, 3),
}
ARRAYS = ("digits", "npz")
COUNTED_QUICKLY = ("digits", "npz", "parquet", "image_folder")
MEND = "give --images TRAIN,TEST and --classes N"


def expected_images(
    data: Data, folder: DataFolder | None, images: tuple[int, int] | None, classes: int | None
) -> ExpectedImages:
    """By the shards, else by what the person says, by the source's files, or as published.

    Args:
        data: where the source's files are there, resolved.
        folder: of the shards, where the source is known.
        images: train and test images of the source, as the person says.
        classes: likewise.

    Raises:
        LtrayError: nothing tells how many there are.
    """
    if folder is not None and is_there(folder.manifest):
        return _prepared(data, read_manifest(folder))
    if images is not None:
        known = classes or _class_count(data)
        if known is None:
            raise LtrayError("--images", "come without the number of classes", "give --classes N")
        return _of(data, Release(*images, known, data.image_size, 3), "as given")
    if folder is not None and _is_counted_quickly(data):
        return _of(data, _counted(data), "counted in the source")
    if data.source in RELEASES:
        published = RELEASES[data.source]
        return _of(data, published, "as published; the files themselves were not looked through")
    raise LtrayError("data.source", f"nothing tells how many images {data.source} has here", MEND)


def filled_in(data: Data) -> Data:
    """The sizes of images whose source is not here, as published.

    Raises:
        LtrayError: neither the experiment nor a publication has them.
    """
    release = RELEASES.get(data.source)
    size = data.image_size or (release.image_size if release else None)
    if size is None:
        found = "is not written, and the source is not here to be asked"
        raise LtrayError("data.image_size", found, "write the pixels per side to store")
    channels = (release.channels if release else 3) if data.channels == "auto" else data.channels
    encoding = ("raw" if size < 64 else "jpeg") if data.encoding == "auto" else data.encoding
    filled = {"image_size": size, "crop_size": data.crop_size or size}
    return data.model_copy(update={**filled, "channels": channels, "encoding": encoding})


def _prepared(data: Data, manifest: Manifest) -> ExpectedImages:
    train, validation, test = image_counts(manifest, data)
    return ExpectedImages(
        train=train,
        validation=validation,
        test=test,
        stored=sum(manifest.counts.values()),
        classes=_class_count(data) or len(manifest.class_names),
        encoded=data.source not in ARRAYS,
        prepared=True,
        told_by="in the prepared shards",
    )


def _is_counted_quickly(data: Data) -> bool:
    if data.source in COUNTED_QUICKLY:
        return True
    return data.source.startswith(TORCHVISION_PREFIX) and data.source not in RELEASES


def _counted(data: Data) -> Release:
    index = index_of(open_source(data))
    sizes = {split: len(examples.keys) for split, examples in index.splits.items()}
    labelled = [
        split
        for split in ("test", "val")
        if split in sizes and index.splits[split].labels.max() >= 0
    ]
    test = sizes[labelled[0]] if labelled else 0
    classes = 1 + max(int(examples.labels.max()) for examples in index.splits.values())
    more = sum(sizes.values()) - sizes["train"] - test
    return Release(sizes["train"], test, classes, data.image_size, 3, more)


def _of(data: Data, release: Release, told_by: str) -> ExpectedImages:
    """What the experiment takes of a release, whose classes are taken to be alike in size."""
    wanted = _class_count(data)
    share = decimal(wanted) / release.classes if wanted else decimal(1)
    total, test = exact_count(share, release.train), exact_count(share, release.test)
    validation = exact_count(decimal(data.validation_fraction), total)
    return ExpectedImages(
        train=min(total - validation, data.train_limit or total),
        validation=validation,
        test=test,
        stored=release.train + release.test + release.more,
        classes=wanted or release.classes,
        encoded=data.source not in ARRAYS,
        prepared=False,
        told_by=told_by,
    )


def _class_count(data: Data) -> int | None:
    return None if data.classes == "all" else len(data.classes)
