"""`python -m ltray.export`: one ticket of a run as a folder that anyone can load."""

from ltray.command_line import exit_with, experiment_path, parser, timed_lines


def main() -> int:
    """Run the command; returns its exit status."""
    arguments = parser(
        "export",
        "Write one ticket as a folder of its own: mask, first weights, trained weights, a card and "
        "the code that loads them. What is written is loaded and measured once more.",
    )
    which = arguments.add_mutually_exclusive_group()
    which.add_argument("--ticket", metavar="NAME", help="as in tickets.parquet")
    which.add_argument(
        "--winning",
        action="store_true",
        help="the sparsest winning ticket of the grid; so without --ticket",
    )
    arguments.add_argument(
        "--replicate", type=int, metavar="N", help="of --ticket, where several have it"
    )
    arguments.add_argument("--to", required=True, metavar="DIR", help="a folder that is to be made")
    arguments.add_argument(
        "--license", metavar="NAME", help="that you give the files, as in apache-2.0: on the card"
    )
    arguments.add_argument("--onnx", action="store_true", help="the trained network as ONNX, too")
    options = arguments.parse_args()
    if options.replicate is not None and options.ticket is None:
        arguments.error("--replicate goes with --ticket")

    from ltray.analysis.chosen import choose
    from ltray.analysis.exporting import export
    from ltray.analysis.onnx import check_onnx
    from ltray.analysis.results import collect
    from ltray.files import at
    from ltray.locate import check_begun, locate

    folder = at(options.to, "--to")
    if options.onnx:
        check_onnx()
    run = locate(experiment_path(options.experiment), options.root)
    check_begun(run)
    say = timed_lines()
    chosen = choose(run, collect(run.folder), options.ticket, options.replicate)
    say(chosen.said)
    export(run, chosen, folder, options.license, options.onnx, say)
    return 0


if __name__ == "__main__":
    exit_with(main)
