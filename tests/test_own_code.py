"""Naming, reading and loading a person's own file, whatever its function is for."""

import subprocess
import sys
from pathlib import Path

import pytest

from ltray.errors import LtrayError
from ltray.own_code import OwnCode, is_own_code, load, made_absolute, read_own_code

GOOD = "def mine(size):\n    return size + 1\n"


def code_of(folder: Path, text: str, function: str = "mine") -> OwnCode:
    path = folder / "own.py"
    path.write_text(text)
    return read_own_code("some.key", f"{path}:{function}", ["size"])


@pytest.mark.parametrize("name", ["own.py:mine", "own.py", "a/own.py:mine", "own:mine"])
def test_what_is_meant_as_code_is_told_from_a_name(name: str) -> None:
    assert is_own_code(name)
    assert not is_own_code(name.replace(":", "_").replace(".", "_"))


def test_a_path_is_taken_from_the_folder_of_who_names_it(tmp_path: Path) -> None:
    assert made_absolute("a/own.py:mine", tmp_path) == f"{tmp_path}/a/own.py:mine"
    assert made_absolute("/a/own.py:mine", tmp_path) == "/a/own.py:mine"
    assert made_absolute("s3://a/own.py:mine", tmp_path) == "s3://a/own.py:mine"
    assert made_absolute("~/own.py:mine", tmp_path) == f"{Path.home()}/own.py:mine"


@pytest.mark.parametrize("name", ["own.py", "own.py:", "own:mine", "own.pt:mine", "own.py:a-b"])
def test_a_name_without_one_of_its_parts_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(GOOD)
    with pytest.raises(LtrayError, match=r"some\.key: .* is no file\.py:function"):
        read_own_code("some.key", str(tmp_path / name), ["size"])


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "networks.py").write_text(GOOD)
    with pytest.raises(LtrayError, match=r"netwroks\.py: no such file; did you mean 'networks.py'"):
        read_own_code("some.key", f"{tmp_path}/netwroks.py:mine", ["size"])


def test_a_folder_in_place_of_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.py").mkdir()
    with pytest.raises(LtrayError, match=r"own\.py: cannot be read"):
        read_own_code("some.key", f"{tmp_path}/own.py:mine", ["size"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("mine", "mien"), "no function 'mine' at its top level; did you mean 'mien'"),
        ("x = 1\ndef mine(size:\n    pass\n", "line 2: not Python"),
        ("def mine(size):\nreturn 1\n", "line 2: not Python"),
        ("x = '\0'\n", "not Python"),
        ("def mine(site):\n    pass\n", "line 1: mine takes no size"),
        ("\ndef mine(size, depth):\n    pass\n", "line 2: mine needs depth, which nobody gives"),
        ("def mine(size, *, depth):\n    pass\n", "needs depth"),
        ("def mine(size, /):\n    pass\n", "takes size only without its name"),
        ("from .blocks import x\n" + GOOD, "line 1: imports .blocks, which lies beside it"),
        ("def mine(size):\n    import blocks.deep\n", "line 2: imports blocks.deep, which lies"),
        ("from package import x\n" + GOOD, "imports package, which lies beside it"),
        ("import bare.deep.part\n" + GOOD, "imports bare.deep.part, which lies beside it"),
    ],
)
def test_what_cannot_work_is_said_without_running_the_file(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "blocks.py").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").touch()
    (tmp_path / "bare/deep").mkdir(parents=True)
    (tmp_path / "bare/deep/part.py").touch()
    text += "raise SystemExit('it was run')\n"
    with pytest.raises(LtrayError) as caught:
        code_of(tmp_path, text)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"some.key: {tmp_path / 'own.py'}")


@pytest.mark.parametrize(
    "signature",
    ["size", "size, depth=2", "depth=2, *, size", "**rest", "*, size, depth=2", "*places, size"],
)
def test_a_function_that_can_be_called_with_the_keywords_is_taken(
    signature: str, tmp_path: Path
) -> None:
    code = code_of(tmp_path, f"def mine({signature}):\n    return locals()\n")
    found = load(code)(size=7)
    assert found.get("size", found.get("rest")) in (7, {"size": 7})


def test_a_folder_with_the_name_of_a_library_is_no_neighbour(tmp_path: Path) -> None:
    """Python takes the library, whatever is in the folder."""
    (tmp_path / "json").mkdir()
    (tmp_path / "json/convert.py").touch()
    assert load(code_of(tmp_path, "import json\n" + GOOD))(size=1) == 2


def test_ltray_may_lie_beside_it_as_in_a_clone(tmp_path: Path) -> None:
    (tmp_path / "ltray").mkdir()
    (tmp_path / "ltray/__init__.py").touch()
    assert load(code_of(tmp_path, "from ltray.errors import LtrayError\n" + GOOD))(size=1) == 2


def test_reading_imports_no_torch() -> None:
    program = "import sys, ltray.own_code; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"set()\n"


def test_a_file_is_run_once_and_a_changed_one_again(tmp_path: Path) -> None:
    counting = "calls = []\ndef mine(size):\n    calls.append(size)\n    return len(calls)\n"
    one = code_of(tmp_path, counting)
    assert [load(one)(size=1), load(one)(size=1)] == [1, 2]
    other = code_of(tmp_path, counting + "# changed\n")
    assert load(other)(size=1) == 1
    assert one.sha256 != other.sha256


def test_dataclasses_work_in_a_file(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass, KW_ONLY\n"
        "@dataclass\nclass Width:\n    _: KW_ONLY\n    size: int\n"
        "def mine(size):\n    return Width(size=size).size\n"
    )
    assert load(code_of(tmp_path, text))(size=3) == 3


@pytest.mark.parametrize(
    ("line", "said", "mend"),
    [
        ("import no_such_library_at_all", "No module named", "the only one to reach workers"),
        ("1 / 0", "ZeroDivisionError", "mend the file"),
        ("raise SystemExit(3)", "SystemExit: 3", "mend the file"),
    ],
)
def test_a_file_that_cannot_be_run_is_one_clear_text(
    line: str, said: str, mend: str, tmp_path: Path
) -> None:
    code = code_of(tmp_path, f"{GOOD}\n{line}\n")
    for _again in range(2):
        with pytest.raises(LtrayError) as caught:
            load(code)
        where, problem, how = caught.value.args
        assert where == f"{code.path}, line 4"
        assert said in problem
        assert mend in how
