"""Functions that Numba compiles for the CPU they run on."""

import shutil
from collections.abc import Callable
from hashlib import sha256
from inspect import getfile
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryFile
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding

Function = TypeVar("Function", bound=Callable[..., Any])
# Sums may be taken in another order than written, which is the same each time; NaN and infinity
# stay what they are. Other threads, which make the next batches, go on meanwhile.
OPTIONS = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy", "nogil": True}


def compiled(function: Function) -> Function:
    """Compile when it is first called, and keep the result on the disk where that can be."""
    folder = _cache_folder(Path(getfile(function)))
    if folder is None:  # each process compiles for itself
        return compiled_part(function)
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
    try:
        return cast(Function, numba.njit(cache=True, **OPTIONS)(function))
    finally:
        numba.config.CACHE_DIR = before


def compiled_part(function: Function) -> Function:
    """Compile as a part of those that call it."""
    return cast(Function, numba.njit(**OPTIONS)(function))


def call_first(function: Callable[..., Any], *arguments: Any) -> None:
    """Compile by a call, so that no later one takes seconds."""
    try:
        function(*arguments)
    except OSError:  # a full disk keeps nothing, but what was compiled can be called now
        function(*arguments)
    except (EOFError, UnpicklingError):  # a machine went down while it was kept
        shutil.rmtree(function.stats.cache_path, ignore_errors=True)  # type: ignore[attr-defined]
        function(*arguments)


def _cache_folder(source: Path) -> Path | None:
    """Beside the source, else in the person's cache; of this code, Numba and kind of CPU alone.

    Numba names a file before it writes it. Processes that compile other code at the same moment, of
    another version or on another kind of node that shares the disk, could run each other's.
    """
    cpu = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
    code = source.read_bytes() + Path(__file__).read_bytes()  # this file has the options
    what = code + f"{numba.__version__} {cpu}".encode()
    name = f"numba-{sha256(what).hexdigest()[:16]}"
    for parent in (source.parent / "__pycache__", Path("~/.cache/ltray")):
        try:
            folder = parent.expanduser() / name
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()  # as Numba tries it, which then looks elsewhere
        except (OSError, RuntimeError):  # RuntimeError: a user of a container who has no home
            continue
        return folder
    return None
