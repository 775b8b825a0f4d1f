"""Opening the source that an experiment names."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ltray.data.archives.digits import Digits
from ltray.data.archives.ilsvrc2012 import TASK_3, TASKS_1_AND_2, Ilsvrc2012
from ltray.data.archives.image_folder import ImageFolder
from ltray.data.archives.npz import Npz
from ltray.data.archives.parquet import ParquetFiles
from ltray.data.archives.source import Source
from ltray.data.archives.torchvision_dataset import TorchvisionDataset
from ltray.data.archives.webdataset import WebDataset
from ltray.errors import LtrayError
from ltray.experiment import TORCHVISION_PREFIX, Data
from ltray.files import at, is_local

SOURCES: dict[str, Callable[[Path], Source]] = {
    "npz": Npz,
    "image_folder": ImageFolder,
    "webdataset": WebDataset,
    "ilsvrc2012": partial(Ilsvrc2012, release=TASKS_1_AND_2),
    "ilsvrc2012_t3": partial(Ilsvrc2012, release=TASK_3),
}


def open_source(data: Data, scratch: Path | None = None) -> Source:
    """The source of `data`; its path is absolute. No file is opened yet.

    Args:
        scratch: folder that every node sees, for what a source copies while it is prepared; not
            needed to ask for its files and its geometry.

    Raises:
        LtrayError: no path is written, or nothing here reads such an address.
    """
    if data.source == "digits":
        return Digits()
    if data.path is None:
        raise LtrayError(
            "data.path",
            f"is not written, and source {data.source} needs it",
            "write where the source's own files lie",
        )
    path = at(data.path, "data.path")
    single_files = data.source == "image_folder" or data.source.startswith(TORCHVISION_PREFIX)
    if single_files and not is_local(path):
        raise LtrayError(
            "data.path",
            f"{data.source} reads files of a file system, and {path} lies in an object store",
            "put webdataset tars or Parquet files there, which are read where they lie",
        )
    if data.source.startswith(TORCHVISION_PREFIX):
        return TorchvisionDataset(data.source.removeprefix(TORCHVISION_PREFIX), path)
    if data.source == "parquet":
        return ParquetFiles(path, scratch)
    return SOURCES[data.source](path)
