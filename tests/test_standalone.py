"""What an exported folder's code is made of."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ltray.analysis.exporting import loading_code
from ltray.lottery.standalone import standalone


def test_the_code_imports_nothing_of_ltray() -> None:
    tree = ast.parse(loading_code())
    imported = [
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    others = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others == {"torch", "safetensors"}


def test_every_name_in_the_code_is_defined_there(tmp_path: Path) -> None:
    path = tmp_path / "load_ticket.py"
    path.write_text(loading_code())
    check = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", str(path)]
    found = subprocess.run(check, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_definitions_come_after_those_that_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sample_of_order"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "import os\nfrom sample_of_order.two import twice\n\nFIRST = twice(2)\nUNUSED = os.sep\n"
    )
    (package / "two.py").write_text(
        "import math\n\n\n# Of a sphere.\ndef twice(x):\n    return math.floor(_more(x))\n\n\n"
        "def _more(x):\n    return 2 * x\n\n\ndef unused():\n    return 0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ltray.lottery.standalone.PACKAGE", "sample_of_order")
    text = standalone("sample_of_order.one", ["FIRST"], '"""Sample."""')
    made: dict[str, object] = {}
    exec(text, made)
    assert made["FIRST"] == 4
    assert "unused" not in text.lower()
    assert "import os" not in text
    assert "# Of a sphere.\ndef twice" in text


def test_one_name_for_two_things_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sample_of_names"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text(
        "from sample_of_names.b import use\n\nSIZE = 1\n\n\ndef f():\n    return SIZE + use()\n"
    )
    (package / "b.py").write_text("SIZE = 2\n\n\ndef use():\n    return SIZE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ltray.lottery.standalone.PACKAGE", "sample_of_names")
    with pytest.raises(AssertionError, match="one name means two things"):
        standalone("sample_of_names.a", ["f"], '"""Sample."""')
