"""Compiled functions on disks that keep nothing."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from ltray.training.backends.compiling import call_first

SOURCE = """
from ltray.training.backends.compiling import compiled

@compiled
def twice(number):
    return 2 * number
"""


def module_at(path: Path) -> ModuleType:
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kept_in(folder: Path) -> list[Path]:
    return list(folder.glob("numba-*/*/*.nbc"))


def test_what_was_compiled_is_kept_beside_the_source(tmp_path: Path) -> None:
    assert module_at(tmp_path / "one.py").twice(4) == 8
    assert kept_in(tmp_path / "__pycache__")


def test_what_was_compiled_is_kept_for_the_person_where_the_source_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__pycache__").write_text("in the way of a folder")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert module_at(tmp_path / "two.py").twice(4) == 8
    assert kept_in(tmp_path / "home" / ".cache" / "ltray")


def test_without_any_folder_each_process_compiles_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("__pycache__", "home"):
        (tmp_path / name).write_text("in the way of a folder")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert module_at(tmp_path / "three.py").twice(4) == 8


def no_such_user(uid: int) -> None:
    raise KeyError(uid)


def test_a_user_without_a_home_compiles_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__pycache__").write_text("in the way of a folder")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    with pytest.raises(RuntimeError):
        Path.home()
    assert module_at(tmp_path / "four.py").twice(4) == 8


def test_a_full_disk_stops_no_first_call() -> None:
    calls = []

    def fails_once(number: int) -> None:
        calls.append(number)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")

    call_first(fails_once, 3)
    assert calls == [3, 3]
