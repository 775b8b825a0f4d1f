"""`python -m ltray.stability`: which reset points can work, before the grid is paid for."""

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
    """Run the command; returns its exit status: 1 when a pair has no line."""
    arguments = parser(
        "stability",
        "Train two copies of the dense network from each reset point, in other orders of the "
        "images, and measure the error between them. What is done is not done again.",
    )
    add_connection(arguments)
    add_tracking(arguments)
    arguments.add_argument(
        "--sparsities",
        type=float,
        nargs="+",
        default=[],
        metavar="S",
        help="the same for tickets at these sparsities of the experiment",
    )
    options = arguments.parse_args()

    from ltray.analysis.wording import quantity
    from ltray.cluster.stability import stability_run
    from ltray.locate import locate

    run = locate(experiment_path(options.experiment), options.root)
    say = timed_lines()
    wanted = list(options.sparsities)
    without = stability_run(run, wanted, connection(options), say, options.track)
    if without:
        say(f"{quantity(without, 'pair')} without a line: the report says why")
    return int(without > 0)


if __name__ == "__main__":
    exit_with(main)
