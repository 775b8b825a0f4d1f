"""Work on a storage that fails: done again while there is hope, else one error that tells."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ltray.errors import LtrayError, StageFailed
from ltray.files import check_takes_files, is_local

WAITS_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# What another try would find again, and what is a mistake of ours or a person's.
LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)
# Libraries of object stores whose own errors are no OSError.
STORE_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google")

Result = TypeVar("Result")


def patiently(work: Callable[[], Result], storage: Path) -> Result:
    """What `work` gives; done again, for some minutes in all, when storage failed meanwhile.

    Args:
        work: finds by itself what it had done before.
        storage: what to name where there is no room left.

    Raises:
        StageFailed: there is no room left.
    """
    for wait in WAITS_SECONDS:
        try:
            return work()
        except Exception as error:
            check_room(error, storage)
            if not is_storage_error(error):
                raise
        time.sleep(wait)
    return work()


def is_storage_error(error: BaseException) -> bool:
    """Whether a disk, a shared folder or a store failed in a way that may pass."""
    lasting = isinstance(error, LASTING)
    return is_store_error(error) or (isinstance(error, OSError) and not lasting)


def is_store_error(error: BaseException) -> bool:
    """Whether it is one of an object store's library, which have classes of their own."""
    return type(error).__module__.partition(".")[0] in STORE_LIBRARIES


def check_writable(root: Path, where: str) -> None:
    """Refuse an object store that does not answer, or lets nothing be written.

    Args:
        where: what to call the root in the error.

    Raises:
        LtrayError: it is one.
    """
    if is_local(root):
        return
    try:
        check_takes_files(root)
    except Exception as error:
        if not isinstance(error, OSError) and not is_store_error(error):
            raise
        mend = "name a bucket that is there; address and credentials as its library takes them"
        raise LtrayError(where, f"{root}: {error}", mend) from None


def check_room(error: BaseException, storage: Path) -> None:
    """Say so when an error means that the root is full, or its quota used up.

    Raises:
        StageFailed: it does.
    """
    if isinstance(error, OSError) and error.errno in NO_ROOM and _is_about(error, storage):
        where = str(error.filename or storage)
        mend = "make room, then give the same command: it goes on from here"
        raise StageFailed(where, f"{error.strerror}; nothing is lost", mend) from error


def _is_about(error: OSError, storage: Path) -> bool:
    """Whether it is the storage that is full, and not a disk of this machine alone."""
    root = str(storage.parent)
    return error.filename is None or str(error.filename).startswith(root)
