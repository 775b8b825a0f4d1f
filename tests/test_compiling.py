"""Compiled functions on disks that keep nothing."""

import importlib.util
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType

import pytest
from llvmlite import binding
from numba.core.caching import IndexDataCacheFile

from ltray.training.backends.compiling import call_first

SOURCE = """
from ltray.training.backends.compiling import compiled

@compiled
def twice(number):
    return 2 * number
"""


def module_at(path: Path, source: str = SOURCE) -> ModuleType:
    path.write_text(source)
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
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    with pytest.raises(RuntimeError):
        Path.home()
    assert module_at(tmp_path / "four.py").twice(4) == 8


def test_code_compiled_on_another_kind_of_cpu_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_at(tmp_path / "five.py").twice(4)
    module_at(tmp_path / "five.py").twice(4)
    assert len(kept_in(tmp_path / "__pycache__")) == 1
    monkeypatch.setattr(binding, "get_host_cpu_name", lambda: "another")
    module_at(tmp_path / "five.py").twice(4)
    assert len(kept_in(tmp_path / "__pycache__")) == 2


def test_code_of_another_version_is_not_taken(tmp_path: Path) -> None:
    module_at(tmp_path / "six.py").twice(4)
    assert module_at(tmp_path / "six.py", SOURCE.replace("2 *", "33 *")).twice(4) == 132
    assert len(kept_in(tmp_path / "__pycache__")) == 2


def test_a_full_disk_stops_no_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_what: object) -> None:
        raise OSError(28, "No space left on device")

    twice = module_at(tmp_path / "seven.py").twice
    monkeypatch.setattr(IndexDataCacheFile, "_save_data", full)
    with pytest.raises(OSError, match="No space"):
        module_at(tmp_path / "eight.py").twice(4)
    call_first(twice, 4)
    assert twice(4) == 8
    assert not kept_in(tmp_path / "__pycache__")


@pytest.mark.parametrize("left", [0, 20])
@pytest.mark.parametrize("kind", ["nbc", "nbi"])
def test_half_a_file_is_thrown_away(kind: str, left: int, tmp_path: Path) -> None:
    path = tmp_path / "nine.py"
    module_at(path).twice(4)
    (kept,) = (tmp_path / "__pycache__").glob(f"numba-*/*/*.{kind}")
    kept.write_bytes(kept.read_bytes()[:left])
    with pytest.raises((EOFError, UnpicklingError)):
        module_at(path).twice(4)
    twice = module_at(path).twice
    call_first(twice, 4)
    assert twice(4) == 8
    assert module_at(path).twice(4) == 8
