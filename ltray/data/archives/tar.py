"""What lies where in a tar archive, also in one inside another, without unpacking anything."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ltray.data.decode import too_large
from ltray.errors import LtrayError

BLOCK = 512
# GNU tar pads an archive to 10 KiB; a longer run of zeros is a download that left a hole.
MAX_PADDING = 1024 * 1024
MAX_HEADER_BYTES = 1024 * 1024


def is_tar(file: BinaryIO, start: int, end: int) -> bool:
    """Whether the bytes [start, end) of a file begin as a tar archive with a member does."""
    file.seek(start)
    try:
        tarfile.TarInfo.frombuf(file.read(min(BLOCK, end - start)), "utf-8", "replace")
    except tarfile.TarError:
        return False
    return True


def members(file: BinaryIO, name: str, start: int, end: int) -> Iterator[tarfile.TarInfo]:
    """The members of the tar archive that is the bytes [start, end) of an open file.

    Their offset_data counts from the beginning of the file, so a tar inside a tar is read where
    it lies. The file may be moved about between members.

    Args:
        name: what to call the archive in an error.

    Raises:
        LtrayError: the archive is cut short or damaged.
    """
    headers = _Headers(file)
    headers.seek(start)
    try:
        archive = tarfile.TarFile(
            fileobj=cast("BinaryIO", headers), encoding="utf-8", errors="replace"
        )
        at = start
        while (member := archive.next()) is not None:
            if archive.offset > end:
                raise _cut_short(name, f"its member {member.name} goes beyond the end")
            if member.size < 0 or archive.offset <= at:
                raise _cut_short(name, f"its member {member.name} claims {member.size} bytes")
            at = archive.offset
            headers.left = MAX_HEADER_BYTES
            archive.members.clear()  # type: ignore[attr-defined] # or it keeps them all in memory
            yield member
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise _cut_short(name, str(error)) from error
    _check_end(file, name, archive.offset, end)


def whole_file(file: BinaryIO, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar archive that is a file of its own.

    Raises:
        LtrayError: it is no tar archive, is cut short or damaged.
    """
    size = path.stat().st_size
    if not is_tar(file, 0, size):
        raise LtrayError(str(path), "is not a tar archive", "fetch it again, as it was published")
    return members(file, str(path), 0, size)


def why_not_taken(member: tarfile.TarInfo) -> str | None:
    """Why a member is no input, or None for a plain file. Folders are not asked about."""
    if member.islnk() or member.issym():
        return "a link, not a file"
    if not member.isreg() or member.issparse():
        return "not a plain file"
    return None


def why_no_image(member: tarfile.TarInfo) -> str | None:
    """Why a member cannot be an image, or None."""
    return why_not_taken(member) or too_large(member.size)


class _Headers:
    """The file that tarfile reads headers from, and no more of than headers of one member are.

    A damaged header may claim to be as long as the archive.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = MAX_HEADER_BYTES
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("a header that claims to be longer than any")
        return self._file.read(size)


def _check_end(file: BinaryIO, name: str, position: int, end: int) -> None:
    """A whole archive ends in zeros: a mark of two blocks, and padding."""
    rest = end - position
    file.seek(position)
    if len(file.read(min(BLOCK, rest))) < BLOCK:
        raise _cut_short(name, "it ends without the end mark of a tar archive")
    file.seek(position)
    if rest > MAX_PADDING or any(file.read(rest)):
        raise _cut_short(name, f"{rest} bytes follow its last member, at byte {position}")


def _cut_short(name: str, found: str) -> LtrayError:
    return LtrayError(
        name,
        f"the archive is damaged or only partly there: {found}",
        "compare its size and checksum with the published ones, and fetch it again",
    )
