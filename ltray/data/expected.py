"""What images an experiment will have, as far as can be told without its source's own files."""

from dataclasses import dataclass

import numpy as np

from ltray.data.archives.index import index_of
from ltray.data.archives.sources import open_source
from ltray.data.manifest import Manifest, read_manifest
from ltray.data.selection import chosen_classes, image_counts
from ltray.errors import ImagesUnknown, LtrayError
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
# Sources whose images are arrays already.
ARRAYS = ("digits", "npz", *(name for name in RELEASES if name != "ilsvrc2012"))
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
        ImagesUnknown: nothing tells how many there are.
        LtrayError: what is told does not fit the experiment.
    """
    if folder is not None and is_there(folder.manifest):
        return _prepared(data, read_manifest(folder))
    if images is not None:
        if classes is None:
            raise LtrayError("--images", "comes without the number of classes", "give --classes N")
        return _of(data, Release(*images, classes, data.image_size, 3), "as given")
    if folder is not None and _is_counted_quickly(data):
        return _counted(data)
    if data.source in RELEASES:
        published = RELEASES[data.source]
        return _of(data, published, "as published; the files themselves were not looked through")
    found = f"nothing tells how many images {data.source} has here"
    raise ImagesUnknown("data.source", found, MEND)


def filled_in(data: Data) -> Data:
    """The sizes of images whose source is not here, as published.

    Raises:
        ImagesUnknown: neither the experiment nor a publication has them.
        LtrayError: they do not fit the experiment.
    """
    release = RELEASES.get(data.source)
    size = data.image_size or (release.image_size if release else None)
    if size is None:
        found = "is not written, and the source is not here to be asked"
        raise ImagesUnknown("data.image_size", found, "write the pixels per side to store")
    if data.crop_size is not None and data.crop_size > size:
        found = f"{data.crop_size} is larger than the images of {data.source}, {size} pixels"
        raise LtrayError("data.crop_size", found, f"write at most {size}")
    channels = release.channels if data.channels == "auto" and release else data.channels
    if channels == "auto":
        found = "is not written, and the source is not here to be asked"
        raise ImagesUnknown("data.channels", found, "write 1 for grey images, 3 for colour")
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
        classes=len(chosen_classes(data, len(manifest.class_names))),
        encoded=data.source not in ARRAYS,
        prepared=True,
        told_by="in the prepared shards",
    )


def _is_counted_quickly(data: Data) -> bool:
    if data.source in COUNTED_QUICKLY:
        return True
    return data.source.startswith(TORCHVISION_PREFIX) and data.source not in RELEASES


def _counted(data: Data) -> ExpectedImages:
    index = index_of(open_source(data))
    labels = {split: examples.labels for split, examples in index.splits.items()}
    chosen = chosen_classes(data, 1 + max(int(each.max()) for each in labels.values()))
    labelled = [split for split in ("test", "val") if split in labels and labels[split].max() >= 0]
    return _expected(
        data,
        train=int(np.isin(labels["train"], chosen).sum()),
        test=int(np.isin(labels[labelled[0]], chosen).sum()) if labelled else 0,
        stored=sum(len(each) for each in labels.values()),
        classes=len(chosen),
        told_by="counted in the source",
    )


def _of(data: Data, release: Release, told_by: str) -> ExpectedImages:
    """What the experiment takes of a release, whose classes are taken to be alike in size."""
    classes = len(chosen_classes(data, release.classes))
    share = decimal(classes) / release.classes
    return _expected(
        data,
        train=exact_count(share, release.train),
        test=exact_count(share, release.test),
        stored=release.train + release.test + release.more,
        classes=classes,
        told_by=told_by,
    )


def _expected(  # noqa: PLR0913 (what is known of a source)
    data: Data, *, train: int, test: int, stored: int, classes: int, told_by: str
) -> ExpectedImages:
    """With validation cut from `train`, as `data.selection.select` does it."""
    validation = exact_count(decimal(data.validation_fraction), train)
    return ExpectedImages(
        train=min(train - validation, data.train_limit or train),
        validation=validation,
        test=test,
        stored=stored,
        classes=classes,
        encoded=data.source not in ARRAYS,
        prepared=False,
        told_by=told_by,
    )
