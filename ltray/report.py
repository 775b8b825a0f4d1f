"""`python -m ltray.report`: the tables and the page of a run, whole or half-finished."""

from ltray.command_line import exit_with, experiment_path, parser


def main() -> int:
    """Run the command; returns its exit status."""
    arguments = parser("report", "Write tickets.parquet, epochs.parquet and report.html of a run.")
    options = arguments.parse_args()

    from ltray.analysis.page import write_report
    from ltray.analysis.results import collect, write_tables
    from ltray.cluster.lease import has_driver, only_driver
    from ltray.locate import check_begun, locate, write_experiment

    run = locate(experiment_path(options.experiment), options.root)
    check_begun(run)
    if not has_driver(run.folder):  # a sweep at work writes its tables itself
        with only_driver(run.folder):
            write_experiment(run)
            write_tables(run.folder, collect(run.folder), run.experiment.report.margin)
    print(write_report(run.folder, run.experiment))
    return 0


if __name__ == "__main__":
    exit_with(main)
