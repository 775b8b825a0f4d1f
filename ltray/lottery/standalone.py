"""Functions of ltray's own modules, with all that they use of each other, as one Python file."""

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "ltray"


def standalone(module: str, names: Sequence[str], preface: str) -> str:
    """The source of a file that defines `names` without importing ltray.

    Definitions are copied as they are written, in the order of the modules that need them; nothing
    else of these modules is.

    Args:
        module: where the names are defined.
        preface: what the file begins with, a docstring.
    """
    gathered = _Gathered()
    for name in names:
        gathered.take(module, name)
    every = [name for source in gathered.sources.values() for name in source.taken]
    assert len(every) == len(set(every)), f"one name means two things: {sorted(every)}"
    head = f"{preface}\n\n{gathered.imports()}"
    return "\n\n\n".join([head, *(source.text() for source in gathered.in_order())]) + "\n"


@dataclass
class _Source:
    """One module: its text, which of its names are taken, and which modules these need."""

    name: str
    lines: list[str]
    tree: ast.Module
    taken: set[str] = field(default_factory=set)
    needs: set[str] = field(default_factory=set)

    def definition(self, name: str) -> ast.stmt | None:
        return next((one for one in self.tree.body if name in _defined(one)), None)

    def imported(self, name: str) -> tuple[str, str | None] | None:
        """(module, the name in it, or None for the module itself) of an imported name."""
        for node in self.tree.body:
            if isinstance(node, ast.Import) and name in _names(node):
                return name, None
            if isinstance(node, ast.ImportFrom) and name in _names(node):
                return str(node.module), name
        return None

    def text(self) -> str:
        """What is taken, in its order, each with the comments right above it."""
        text = f"# From {self.name}."
        apart = "\n\n"
        for node in self.tree.body:
            if _defined(node) & self.taken:
                is_constant = isinstance(node, ast.Assign | ast.AnnAssign)
                text += (apart if is_constant else "\n\n\n") + self._written(node)
                apart = "\n" if is_constant else "\n\n\n"
        return text

    def _written(self, node: ast.stmt) -> str:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(one.lineno for one in decorators)]) - 1
        while first and self.lines[first - 1].startswith("#"):
            first -= 1
        return "\n".join(self.lines[first : node.end_lineno])


class _Gathered:
    """The modules that something is taken from."""

    def __init__(self) -> None:
        self.sources: dict[str, _Source] = {}
        self._from_elsewhere: dict[str, set[str | None]] = {}

    def take(self, module: str, name: str) -> None:
        """Take a definition and all that it uses."""
        if module not in self.sources:
            self.sources[module] = _opened(module)
        source = self.sources[module]
        if name in source.taken:
            return
        node = source.definition(name)
        assert node is not None, f"{module} does not define {name}"
        source.taken.add(name)
        for used in _used(node):
            if source.definition(used) is not None:
                self.take(module, used)
            elif found := source.imported(used):
                self._take_imported(source, *found)

    def _take_imported(self, by: _Source, module: str, name: str | None) -> None:
        if module.partition(".")[0] != PACKAGE:
            self._from_elsewhere.setdefault(module, set()).add(name)
            return
        assert name is not None, f"import names from {module}, not the module"
        by.needs.add(module)
        self.take(module, name)

    def in_order(self) -> list[_Source]:
        """Each after those that it needs."""
        needs = {name: sorted(source.needs) for name, source in sorted(self.sources.items())}
        return [self.sources[name] for name in TopologicalSorter(needs).static_order()]

    def imports(self) -> str:
        """The import lines for what is not ltray's: Python's own first."""
        own: list[str] = []
        others: list[str] = []
        for module, names in sorted(self._from_elsewhere.items()):
            group = own if module.partition(".")[0] in sys.stdlib_module_names else others
            group += [f"import {module}"] * (None in names)
            if parts := sorted(name for name in names if name is not None):
                group.append(f"from {module} import {', '.join(parts)}")
        for group in (own, others):
            group.sort(key=lambda line: line.startswith("from"))
        return "\n\n".join("\n".join(group) for group in (own, others))


def _opened(module: str) -> _Source:
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    text = Path(spec.origin).read_text(encoding="utf-8")
    return _Source(module, text.splitlines(), ast.parse(text))


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return {one.id for one in targets if isinstance(one, ast.Name)}


def _names(node: ast.Import | ast.ImportFrom) -> set[str]:
    """What an import defines here, which is to have the name that it has at home."""
    assert all(alias.asname is None for alias in node.names), ast.unparse(node)
    return {alias.name for alias in node.names}


def _used(node: ast.stmt) -> set[str]:
    """Every name in a definition; one that is local there may be among them, which does no harm."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
