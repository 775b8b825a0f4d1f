"""Opening the source that an experiment names."""

from pathlib import Path

from ltray.data.archives.digits import Digits
from ltray.data.archives.ilsvrc2012 import Ilsvrc2012
from ltray.data.archives.image_folder import ImageFolder
from ltray.data.archives.npz import Npz
from ltray.data.archives.parquet import ParquetFiles
from ltray.data.archives.source import Source
from ltray.data.archives.torchvision_dataset import TorchvisionDataset
from ltray.errors import LtrayError
from ltray.experiment import TORCHVISION_PREFIX, Data


def open_source(data: Data) -> Source:
    """The source of `data`; its path is absolute. No file is opened yet.

    Raises:
        LtrayError: no path is written, or it is not one of a file system.
    """
    if data.source == "digits":
        return Digits()
    path = _path(data)
    if data.source.startswith(TORCHVISION_PREFIX):
        return TorchvisionDataset(data.source.removeprefix(TORCHVISION_PREFIX), path)
    match data.source:
        case "npz":
            return Npz(path)
        case "parquet":
            return ParquetFiles(path)
        case "image_folder":
            return ImageFolder(path)
        case "ilsvrc2012":
            return Ilsvrc2012(path)
    raise LtrayError("data.source", f"'{data.source}' cannot be read yet", "choose another source")


def _path(data: Data) -> Path:
    if data.path is None:
        raise LtrayError(
            "data.path",
            f"is not written, and source {data.source} needs it",
            "write where the source's own files lie",
        )
    if "://" in data.path:
        raise LtrayError(
            "data.path",
            f"'{data.path}' is no path of a file system",
            "copy the source's files to a file system that every node sees, or mount them there",
        )
    return Path(data.path)
