"""Criteria by name, and a person's own as `file.py:function`, without importing torch."""

from ltray.files import at
from ltray.own_code import OwnCode, content_of, is_own_code, read_own_code

KEY = "prune.criterion"
ARGUMENTS = ("network", "names", "batches")  # of a person's own function


def check_criterion(criterion: str, sha256: str | None = None) -> OwnCode | None:
    """What a person's own criterion is made by; None for one that has a name.

    Args:
        sha256: of the file that a run was made with. It may be gone or another one by now, and is
            needed only where masks are still to be made.

    Raises:
        LtrayError: there is no such file or function, or it cannot be called so.
    """
    if not is_own_code(criterion):
        return None
    if sha256 is None:
        return read_own_code(KEY, criterion, ARGUMENTS)
    text, _, function = criterion.rpartition(":")
    path = at(text, KEY)
    return OwnCode(KEY, path, function, sha256, content_of(path, sha256))


def by_content(code: OwnCode) -> str:
    """A name of a person's own criterion that tells what its file holds, not where it lies."""
    return f"{code.path.stem}-{code.sha256[:8]}.py:{code.function}"
