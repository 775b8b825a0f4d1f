"""`python -m ltray.report`: the tables and the page of a run, whole or half-finished; or of two."""

from typing import TYPE_CHECKING

from ltray.command_line import exit_with, experiment_path, parser

if TYPE_CHECKING:
    from pathlib import Path

    from ltray.run import Run


def main() -> int:
    """Run the command; returns its exit status."""
    arguments = parser(
        "report",
        "Write tickets.parquet, epochs.parquet and report.html of a run; of two runs, a page that "
        "shows them side by side.",
    )
    arguments.add_argument(
        "others",
        nargs="*",
        metavar="OTHER",
        help="a second experiment or run to compare with the first: compare-*.html in its root",
    )
    options = arguments.parse_intermixed_args()

    from ltray.errors import LtrayError
    from ltray.locate import check_begun, locate

    given = [options.experiment, *options.others]
    if len(given) > 2:
        raise LtrayError(
            "report", f"{len(given)} runs are given", "name one, or two to be compared"
        )
    runs = [locate(experiment_path(one), options.root) for one in given]
    for run in runs:
        check_begun(run)
    print(_comparison(*runs) if len(runs) == 2 else _report(runs[0]))
    return 0


def _report(run: "Run") -> "Path":
    """Tables and page of one run; returns the page."""
    from ltray.analysis.page import write_report
    from ltray.analysis.results import collect, write_tables
    from ltray.cluster.lease import has_driver, only_driver
    from ltray.record import write_experiment

    if has_driver(run.folder):  # a sweep at work writes its tables itself
        return write_report(run.folder, run.experiment)
    with only_driver(run.folder):
        write_experiment(run)
        rows = collect(run.folder)
        write_tables(run.folder, rows, run.experiment.report.margin)
    return write_report(run.folder, run.experiment, rows)


def _comparison(one: "Run", other: "Run") -> "Path":
    from ltray.analysis.comparison import write_comparison

    return write_comparison(one, other)


if __name__ == "__main__":
    exit_with(main)
