"""`python -m ltray.published`: a run of ResNet-50 on ImageNet over the published grid."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ltray.command_line import exit_with, experiment_path, parser

if TYPE_CHECKING:
    from ltray.analysis.published_grid import Comparison, Published
    from ltray.run import Run

DEFAULT = "imagenet_resnet50.yaml"


def main() -> int:
    """Run the command; returns its exit status."""
    arguments = parser(
        "published",
        "Lay a grid of ResNet-50 on ImageNet over the published one; prints that where nobody "
        "has run ours.",
        DEFAULT,
    )
    arguments.add_argument("--json", action="store_true", help="print JSON in place of text")
    options = arguments.parse_args()

    from ltray.analysis.published_grid import compare, read_published
    from ltray.analysis.results import collect

    path = experiment_path(options.experiment, DEFAULT)
    published = read_published()
    run = _run(path, options.root)
    comparison = None
    if run is not None:
        comparison = compare(collect(run.folder), run.experiment, published)
    if options.json:
        _print_json(published, comparison, run)
    else:
        _print_text(published, comparison, run, path)
    return 0


def _run(path: Path, root: Path | None) -> "Run | None":
    """The run of an experiment or a folder; None where it was never begun.

    Raises:
        LtrayError: it is of another network or other images.
    """
    from ltray.analysis.published_grid import check_comparable
    from ltray.experiment_file import read_experiment
    from ltray.locate import DEFAULT_ROOT, locate

    if path.is_dir():
        run = locate(path, root)
        check_comparable(run.experiment, str(path))
        return run
    experiment = read_experiment(path)
    check_comparable(experiment, str(path))
    # Its source is asked only where there may be a run: who has no ImageNet has none, as a rule.
    if not any((root or DEFAULT_ROOT).glob(f"{experiment.name}-*/experiment.yaml")):
        return None
    run = locate(path, root)
    return run if run.folder.path.is_dir() else None


def _print_text(
    published: "Published", comparison: "Comparison | None", run: "Run | None", path: Path
) -> None:
    from ltray.analysis.published_text import comparison_lines, published_lines

    print("\n".join(published_lines(published)) + "\n")
    if run is None or comparison is None:
        print(f"Nobody has run {path.name} under this root yet: there is nothing to compare.")
        print(f"To run it: python -m ltray.sweep {path}")
        return
    print(f"{run.folder.path}\n")
    print("\n".join(comparison_lines(comparison)))


def _print_json(published: "Published", comparison: "Comparison | None", run: "Run | None") -> None:
    from ltray.analysis.published_text import as_json

    folder = None if run is None else str(run.folder.path)
    print(json.dumps(as_json(published, comparison, folder), indent=1))


if __name__ == "__main__":
    exit_with(main)
