"""A command's Ray session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltray.cluster.session import SETTINGS

# Ray looks for an ancestor whose command line begins with `uv run`.
UV_RUN = """
import subprocess, sys
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""
IMPORTS_RAY_FIRST = """
import ray
from ltray.cluster.session import Connection, session

with session(Connection()):
    print(dict(ray.get_runtime_context().runtime_env))
"""


@pytest.mark.ray
def test_under_uv_run_nothing_is_uploaded_even_where_ray_was_imported_before(
    tmp_path: Path,
) -> None:
    (tmp_path / "run").write_text(UV_RUN)
    ended = subprocess.run(
        ["uv", "run", sys.executable, "-c", IMPORTS_RAY_FIRST],
        executable=sys.executable,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in SETTINGS},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "{}"
