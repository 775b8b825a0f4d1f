"""A person's own code, named in an experiment as `file.py:function`.

One file is all that ever reaches the workers, so one file must do: what lies beside it on this
machine lies on no other. What a function is for is not known here.
"""

import ast
import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ltray.errors import LtrayError, did_you_mean
from ltray.files import absolute, at

FORM = "file.py:function"
ONE_FILE = "put all it needs into this file, the only one to reach workers, or install it on them"
MODULE_PREFIX = "ltray_own_code_"  # of the modules that are made of such files


@dataclass(frozen=True)
class OwnCode:
    """One function of one file, as the file was when it was read.

    Attributes:
        key: of the experiment, which names it.
        path: where the file was read.
        sha256: of the file, in hex.
        text: the file's bytes; None where it is gone or changed, and only its hash is known.
    """

    key: str
    path: Path
    function: str
    sha256: str
    text: bytes | None

    @property
    def content(self) -> bytes:
        """The file's bytes.

        Raises:
            LtrayError: it is gone, or another one.
        """
        if self.text is None:
            mend = f"put back the file with the SHA-256 {self.sha256}, and give the command again"
            raise LtrayError(self.key, f"{self.path}: gone or changed since", mend)
        return self.text


def check_unchanged(code: OwnCode, copy: Path) -> None:
    """Refuse a copy of a file that is not what was read.

    Raises:
        LtrayError: it is another now.
    """
    if _read(code.key, copy) != code.content:
        found = f"{copy} has changed since this command read it"
        raise LtrayError(code.key, found, "put it back: another network is another run")


def is_own_code(name: str) -> bool:
    """Whether a name is meant as `file.py:function` and not as a name of ltray's."""
    return ":" in name or name.endswith(".py")


def made_absolute(name: str, folder: Path) -> str:
    """`file.py:function` with the file's path taken from `folder`."""
    path, colon, function = name.rpartition(":")
    if not colon or "://" in path:
        return name
    return f"{absolute(path, folder)}:{function}"


def read_own_code(key: str, name: str, arguments: Sequence[str]) -> OwnCode:
    """Read a file without running it, and check what can be checked so.

    Args:
        key: of the experiment, for errors.
        name: `file.py:function`.
        arguments: the keywords that the function will be called with.

    Raises:
        LtrayError: there is no such file or function, it is not Python, it cannot be called so, or
            it imports a file that lies beside it.
    """
    text, _, function = name.rpartition(":")
    if not text.endswith(".py") or not function.isidentifier():
        raise LtrayError(key, f"'{name}' is no {FORM}", f"write {FORM}, as in nets.py:my_network")
    path = at(text, key)
    content = _read(key, path)
    code = OwnCode(key, path, function, hashlib.sha256(content).hexdigest(), content)
    tree = _parsed(code)
    _check_function(code, tree, arguments)
    for line, imported in _imports(tree):
        _check_import(code, line, imported)
    return code


def content_of(path: Path, sha256: str) -> bytes | None:
    """What a file that was read before holds; None where it is gone or another one by now."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None


def load(code: OwnCode) -> Callable[..., Any]:
    """The function itself. A file is run once per process, however often it is asked for.

    Raises:
        LtrayError: the file is gone, or cannot be run here.
    """
    function: Callable[..., Any] = getattr(_module(code.path, code.content), code.function)
    return function


def its_error(path: Path, error: BaseException, doing: str) -> LtrayError:
    """What to raise where a person's file raised: its line, and what it said.

    Args:
        doing: what failed, as in `nets.py, line 3: <doing>: KeyError: 'a'`.
    """
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, ImportError):
        return LtrayError(where, f"{doing}: {said}", ONE_FILE)
    return LtrayError(where, f"{doing}: {said}", "mend the file, and give the command again")


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.py")])
        mend = "name the file from the experiment's folder, or give the folder of a run made of it"
        raise LtrayError(key, f"{path}: no such file{near}", mend) from None
    except OSError as error:
        found = f"{path}: cannot be read: {error.strerror}"
        raise LtrayError(key, found, "mend that") from None


def _parsed(code: OwnCode) -> ast.Module:
    try:
        return ast.parse(code.content)
    except SyntaxError as error:
        where = f"{code.path}, line {error.lineno}"
        raise LtrayError(code.key, f"{where}: not Python: {error.msg}", "mend the line") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise LtrayError(code.key, f"{code.path}: not Python: {error}", "mend it") from None


def _check_function(code: OwnCode, tree: ast.Module, arguments: Sequence[str]) -> None:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    call = f"def {code.function}({', '.join(arguments)})"
    if code.function not in functions:
        near = did_you_mean(code.function, list(functions))
        found = f"{code.path} has no function '{code.function}' at its top level{near}"
        raise LtrayError(code.key, found, f"write {call} there, or name another")
    fault = _cannot_be_called(functions[code.function].args, arguments)
    if fault:
        where = f"{code.path}, line {functions[code.function].lineno}"
        raise LtrayError(code.key, f"{where}: {code.function} {fault}", f"write {call}")


def _cannot_be_called(of: ast.arguments, arguments: Sequence[str]) -> str | None:
    """Why a function cannot be called with these keywords and no others, or None."""
    if of.posonlyargs:
        return f"takes {of.posonlyargs[0].arg} only without its name"
    named = [one.arg for one in (*of.args, *of.kwonlyargs)]
    missing = [name for name in arguments if name not in named]
    if missing and of.kwarg is None:
        return f"takes no {' and no '.join(missing)}"
    required = len(of.args) - len(of.defaults)
    defaults = [*[None] * required, *of.defaults, *of.kw_defaults]
    needed = [name for name, default in zip(named, defaults, strict=True) if default is None]
    more = [name for name in needed if name not in arguments]
    return f"needs {' and '.join(more)}, which nobody gives it" if more else None


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; a relative one begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def _check_import(code: OwnCode, line: int, imported: str) -> None:
    """Refuse a neighbour even where Python would find it: its changes would change no id."""
    name = imported.partition(".")[0]
    if name == "ltray":
        return  # which every worker has; this may be a clone of it
    folder = code.path.parent
    beside = [folder / f"{name}.py", folder / name / "__init__.py"]
    if not name or any(path.is_file() for path in beside) or _is_namespace(folder, name):
        found = f"{code.path}, line {line}: imports {imported}, which lies beside it"
        raise LtrayError(code.key, found, ONE_FILE)


def _is_namespace(folder: Path, name: str) -> bool:
    """Whether Python would take a folder without `__init__.py` for the package that is imported."""
    if not (folder / name).is_dir():
        return False
    installed = find_spec(name)
    if installed is not None and installed.origin is not None:
        return False  # a package proper goes before
    return next((folder / name).rglob("*.py"), None) is not None


@cache
def _module(path: Path, text: bytes) -> ModuleType:
    module = ModuleType(f"{MODULE_PREFIX}{hashlib.sha256(text).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise its_error(path, error, "cannot be run") from error
    return module
