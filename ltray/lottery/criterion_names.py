"""Criteria by name, and a person's own as `file.py:function`, without importing torch."""

from pathlib import Path

from ltray.own_code import OwnCode, is_own_code, read_own_code

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
    path, _, function = criterion.rpartition(":")
    if sha256 is not None and not Path(path).exists():
        return OwnCode(KEY, Path(path), function, sha256, text=None)
    code = read_own_code(KEY, criterion, ARGUMENTS)
    if sha256 is not None and code.sha256 != sha256:
        return OwnCode(KEY, Path(path), function, sha256, text=None)
    return code


def by_content(code: OwnCode) -> str:
    """A name of a person's own criterion that tells what its file holds, not where it lies."""
    return f"{code.path.stem}-{code.sha256[:8]}.py:{code.function}"
