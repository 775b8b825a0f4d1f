"""Exporting tickets of a run in the same process."""

from pathlib import Path
from typing import Any

from ltray.analysis.chosen import choose
from ltray.analysis.exporting import export
from ltray.analysis.results import collect
from ltray.run import Run


def exported(run: Run, folder: Path, name: str | None = None, **how: Any) -> list[str]:
    """Export a ticket; returns the lines that were said."""
    lines: list[str] = []
    chosen = choose(run, collect(run.folder), name, None)
    arguments = {"licence": None, "with_onnx": False, **how}
    export(run, chosen, folder, say=lines.append, **arguments)
    return lines
