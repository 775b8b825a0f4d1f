"""`python -m ltray.stability`: which reset points can work, before the grid is paid for."""

from argparse import ArgumentTypeError

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
        type=_level,
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


def _level(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        problem = f"'{text}' is no sparsity: give numbers with blanks between them, as in 0.5 0.9, "
        raise ArgumentTypeError(f"{problem}after the experiment's file") from None


if __name__ == "__main__":
    exit_with(main)
