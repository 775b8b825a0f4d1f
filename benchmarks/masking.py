"""What masking costs: the share of a training step, with and without it, step by step in turn.

    python benchmarks/masking.py [--rounds 9] [--steps 40] [--device cpu]

Two copies of a network take the same steps on the same batch; one masks its gradients, as every
ticket does, the other does not. They take turns after every step, so that whatever else the machine
does falls on both. A round's share is the difference of their median steps over the masking one's.

The anchor: the write-up that ltray grows from spent 93 % of every step on masking.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from measuring import conditions, print_table, summary, write_json
from networks import Case, batch, ticket
from steps import finish

CASES = (
    Case("resnet20", 3, 32, 128),
    Case("mobilenet_v2", 3, 64, 64),
    Case("lenet_300_100", 1, 28, 60),
)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--steps", type=int, default=40, help="of each copy in a round")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    found = {
        case.arch: shares(
            case, device, options.rounds, options.steps * (20 if case.side < 32 else 1)
        )
        for case in CASES
    }
    print_table([{"network": arch, **of} for arch, of in found.items()])
    where = conditions("torch")
    print(where)
    write_json(options.json, {"percent_of_a_step": found, "where": where})


def shares(case: Case, device: torch.device, rounds: int, steps: int) -> dict[str, float | int]:
    """Percent of a step that masking takes: median, range, number of rounds; and a step's ms."""
    masking, plain = (ticket(case, device, masked) for masked in (True, False))
    images, labels = batch(case, device)
    turns = [partial(one.train_step, images, labels) for one in (masking, plain)]
    in_turn(turns, 5, device)
    found, milliseconds = [], []
    for number in range(rounds):
        with_masks, without = in_turn(turns if number % 2 else turns[::-1], steps, device)
        if not number % 2:
            with_masks, without = without, with_masks
        found.append(100 * (with_masks - without) / with_masks)
        milliseconds.append(1000 * with_masks)
        print(f"  round {number + 1}/{rounds}, {case.arch}: {found[-1]:.2f} %", flush=True)
    return {**summary(found), "step_ms": summary(milliseconds)["median"]}


def in_turn(
    turns: list[Callable[[], None]], steps: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of a step of each of two, step by step in turn: medians."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps):
        for each, step in zip(seconds, turns, strict=True):
            started = time.perf_counter()
            step()
            finish(device)
            each.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


if __name__ == "__main__":
    main()
