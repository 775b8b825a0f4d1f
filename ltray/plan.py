"""`python -m ltray.plan`: how long an experiment will take, and what that costs."""

import argparse
import json
import sys
from math import isfinite, nan
from pathlib import Path

from ltray.command_line import add_connection, connection, exit_with, experiment_path, parser


def main() -> int:
    """Run the command; returns its exit status."""
    options = _arguments().parse_args()

    from dataclasses import replace

    from ltray.analysis.planning.as_json import as_json
    from ltray.analysis.planning.bill import read_prices, workers_on
    from ltray.analysis.planning.plot import check_plot, plot
    from ltray.analysis.planning.text import lines
    from ltray.cluster.planning import Asked, make_plan
    from ltray.locate import experiment_and_run

    _check_pairs(options)
    if options.plot is not None:
        check_plot(options.plot)
    prices = read_prices(options.prices) if options.prices else read_prices()
    experiment, run = experiment_and_run(experiment_path(options.experiment), options.root, _say)
    if options.instance is not None:
        workers_on(prices.instance(options.instance), experiment.sweep)
    asked = Asked(options.seconds_per_epoch, options.workers, options.images, options.classes)
    shown = replace(
        make_plan(experiment, run, asked, connection(options), _say),
        instance=(options.instance, prices) if options.instance else None,
        hours_between=options.hours_between_interruptions,
    )
    if options.plot is not None and shown.plan.tickets:
        plot(shown.plan, options.plot)
    elif options.plot is not None:
        _say(f"nothing is left to train, so {options.plot} is not drawn")
    print(json.dumps(as_json(shown), indent=1) if options.json else "\n".join(lines(shown)))
    return 0


def _arguments() -> argparse.ArgumentParser:
    arguments = parser(
        "plan",
        "Tell what an experiment will take: work, time on 1 to P workers, speed-up, storage, money."
        " Tries its training on made-up images for a few seconds, unless told what an epoch takes;"
        " the source's files need not be here.",
    )
    add_connection(arguments)
    arguments.add_argument(
        "--seconds-per-epoch", type=_positive, metavar="S", help="of one network on one worker"
    )
    arguments.add_argument(
        "--workers", type=_counts, default=(), metavar="P,...", help="how many to plan for"
    )
    arguments.add_argument(
        "--images", type=_train_and_test, metavar="TRAIN,TEST", help="where the source is not here"
    )
    arguments.add_argument("--classes", type=_count, metavar="N", help="likewise")
    arguments.add_argument("--instance", metavar="NAME", help="tell what it costs on such machines")
    arguments.add_argument(
        "--prices", type=Path, metavar="FILE", help="a table of prices in place of ltray's own"
    )
    arguments.add_argument(
        "--hours-between-interruptions",
        type=_positive,
        metavar="H",
        help="of a worker, on average: spot machines are taken away",
    )
    arguments.add_argument(
        "--plot", type=Path, metavar="FILE", help="speed-up, as .svg, .png, .pdf"
    )
    arguments.add_argument("--json", action="store_true", help="all numbers, for scripts")
    return arguments


def _check_pairs(options: argparse.Namespace) -> None:
    """Refuse a flag that says nothing without another one."""
    from ltray.errors import LtrayError

    if options.prices is not None and options.instance is None:
        raise LtrayError("--prices", "comes without a machine", "give --instance NAME too")
    if (options.images is None) != (options.classes is None):
        given, lacks = ("--images", "--classes N") if options.images else ("--classes", "--images")
        mend = "give --images TRAIN,TEST and --classes N"
        raise LtrayError(given, f"comes without {lacks}", mend)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not (isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _train_and_test(text: str) -> tuple[int, int]:
    counts = _counts(text)
    if len(counts) != 2:
        raise argparse.ArgumentTypeError(f"{text} is not of the form 60000,10000")
    return counts[0], counts[1]


if __name__ == "__main__":
    exit_with(main, "nothing is kept, so the same command begins anew")
