"""`python -m ltray.transfer`: tickets of one data set trained on another."""

from ltray.command_line import (
    add_connection,
    add_tracking,
    connection,
    exit_with,
    experiment_path,
    parser,
    timed_lines,
)


def main() -> int:
    """Run the command; returns its exit status: 1 when a ticket failed."""
    arguments = parser(
        "transfer",
        "Train the tickets of finished sweeps on another data set, beside the dense network from "
        "the same reset points, the target's own tickets, controls and fresh training.",
        default=None,
    )
    arguments.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="an experiment file or a run's folder whose tickets are taken; several are set side "
        "by side",
    )
    arguments.add_argument(
        "--to",
        required=True,
        metavar="TARGET.yaml",
        help="the experiment that they are trained on, or its run's folder",
    )
    add_connection(arguments)
    add_tracking(arguments)
    options = arguments.parse_intermixed_args()

    from ltray.cluster.transferring import transfer_run
    from ltray.locate import check_begun, locate

    paths = [experiment_path(one) for one in options.sources]
    # A run's folder may lie anywhere: --root is where the target's run goes.
    sources = [locate(path, None if path.is_dir() else options.root) for path in paths]
    for source in sources:
        check_begun(source)
    target = locate(experiment_path(options.to), options.root)
    say = timed_lines()
    failed = transfer_run(sources, target, connection(options), say, options.track)
    if failed:
        say(f"{failed} tickets failed: the reports name their errors; the same command retries")
    return int(failed > 0)


if __name__ == "__main__":
    exit_with(main)
