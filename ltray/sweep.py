"""`python -m ltray.sweep`: the main job, from the source's files to the report."""

from typing import TYPE_CHECKING

from ltray.command_line import (
    add_connection,
    add_tracking,
    connection,
    exit_with,
    experiment_path,
    parser,
    timed_lines,
)

if TYPE_CHECKING:
    from ltray.run import Run


def main() -> int:
    """Run the command; returns its exit status: 1 when a ticket of the grid failed."""
    arguments = parser(
        "sweep",
        "Prepare, train the dense network, prune it, retrain every ticket, write the report. "
        "What is done is not done again: the same command goes on where it was.",
    )
    add_connection(arguments)
    add_tracking(arguments)
    arguments.add_argument(
        "--status", action="store_true", help="only say how far the run is; needs no Ray"
    )
    options = arguments.parse_args()

    from ltray.locate import locate

    run = locate(experiment_path(options.experiment), options.root)
    if options.status:
        return _say_status(run)

    from ltray.cluster.sweeping import sweep_run

    say = timed_lines()
    failed = sweep_run(run, connection(options), say, options.track)
    if failed:
        say(
            f"{failed} tickets failed: the report names their errors; the same command retries them"
        )
    return int(failed > 0)


def _say_status(run: "Run") -> int:
    from ltray.cluster.status import status
    from ltray.locate import check_begun

    check_begun(run)
    lines, failed = status(run)
    print("\n".join(lines))
    return int(failed > 0)


if __name__ == "__main__":
    exit_with(main)
