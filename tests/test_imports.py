"""Imports go one way, and only ltray/cluster knows Ray."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ltray"
COMMANDS = {
    "plan",
    "prepare",
    "dense",
    "sweep",
    "report",
    "published",
    "export",
    "stability",
    "transfer",
}
# A module may import from rooms with a lower number, and from its own room.
LEVELS = {
    "errors": 0,
    "files": 1,
    "group": 1,
    "host": 1,
    "randomness": 1,
    "headers": 2,
    "tables": 2,
    "tensors": 3,
    "layout": 1,
    "memory": 1,
    "own_code": 2,
    "patience": 2,
    "say": 1,
    "torchvision_import": 1,
    "experiment": 2,
    "given": 3,
    "contradictions": 3,
    "experiment_file": 4,
    "data": 5,
    "models": 5,
    "run": 6,
    "lottery": 6,
    "record": 7,
    "locate": 8,
    "training": 8,
    "analysis": 9,
    "cluster": 10,
    "api": 11,
    "command_line": 11,
    **dict.fromkeys(COMMANDS, 12),
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in LEVELS, f"{room} has no level: give it one above"
    for name in imported(path):
        if name.startswith("ltray."):
            other = name.split(".")[1]
            lower = LEVELS[other] < LEVELS[room]
            assert lower or other == room, f"{room} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_cluster_room_imports_ray(path: Path) -> None:
    uses_ray = any(name.split(".")[0] == "ray" for name in imported(path))
    assert not uses_ray or room_of(path) == "cluster"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_commands_define_no_class(path: Path) -> None:
    # A class of a command module would be pickled as one of __main__, another one in the worker.
    if room_of(path) in COMMANDS:
        assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)]
