"""What masking costs: the share of a training step, with and without it, step by step in turn.

    python benchmarks/masking.py [--rounds 9] [--steps 40] [--device cpu]

Two copies of a network take the same steps on the same batch; one is a ticket at 90 % sparsity, the
other has no masks and is trained by `loop`. They take turns after every step, so that whatever else
the machine does falls on both. Each pair of steps gives a share, their difference over the
ticket's; a round's is the median of its pairs: all that masks do to a step, and all noise. `call`
is the time of the masking call alone, right after a step of `loop`, over that step: where it is
under a percent, the difference is noise. Measured are tickets by `loop`, and by what `auto` takes
where that is another backend: one that computes only what is kept calls nothing, and its share is
negative.

The anchor: the write-up that ltray grows from spent 93 % of every step on masking.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from measuring import conditions, print_table, summary, write_json
from networks import Case, batch, ticket
from steps import timed

from ltray.training.backends.choice import COMPILED, open_backend
from ltray.training.backends.trial import choose
from ltray.training.network import Network
from ltray.training.place import memory_for_pack, this_place

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
    this_place()
    device = torch.device(options.device)
    found = []
    for case in CASES:
        steps = options.steps * (20 if case.side < 32 else 1)
        for backend in backends_of(case, device):
            of = shares(case, device, options.rounds, steps, backend)
            found.append({"network": case.arch, "backend": backend, **of})
    print_table(found)
    where = conditions("torch")
    print(where)
    write_json(options.json, {"percent_of_a_step": found, "where": where})


def backends_of(case: Case, device: torch.device) -> list[str]:
    """`loop`, and what `auto` takes."""
    make = partial(ticket, case, device)
    chosen = choose("auto", [make], batch(case, device), memory_for_pack(device)).backend
    return list(dict.fromkeys(["loop", chosen]))


def shares(
    case: Case, device: torch.device, rounds: int, steps: int, backend: str = "loop"
) -> dict[str, float | int | None]:
    """Percent of a step that masking takes, in rounds and as a call alone; a step's ms."""
    networks = [ticket(case, device, masked) for masked in (True, False)]
    by_loop = backend in {"loop", COMPILED["loop"]}
    pairs = zip((backend, backend if by_loop else "loop"), networks, strict=True)
    packs = [open_backend(name, (network,)) for name, network in pairs]
    turns = [partial(pack.train_step, *batch(case, device)) for pack in packs]
    in_turn(turns, 5, device)
    found, milliseconds = [], []
    for number in range(rounds):
        with_masks, without = in_turn(turns if number % 2 else turns[::-1], steps, device)
        if not number % 2:
            with_masks, without = without, with_masks
        pairs_of_steps = zip(with_masks, without, strict=True)
        found.append(100 * statistics.median((one - other) / one for one, other in pairs_of_steps))
        milliseconds.append(1000 * statistics.median(with_masks))
        print(
            f"  round {number + 1}/{rounds}, {case.arch} by {backend}: {found[-1]:.2f} %",
            flush=True,
        )
    step = summary(milliseconds)["median"]
    call = None
    if by_loop:
        call = 100 * call_ms(networks[0], turns[0], steps, device) / step
    return {**summary(found), "call": call, "step_ms": step}


def call_ms(network: Network, step: Callable[[], None], steps: int, device: torch.device) -> float:
    """The median time of masking the gradients that a step has left."""
    milliseconds = []
    for _ in range(steps):
        step()
        milliseconds.append(1000 * timed(network._mask_gradients, 1, device))
    return statistics.median(milliseconds)


def in_turn(
    turns: Sequence[Callable[[], None]], steps: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of each step of two, step by step in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps):
        for each, step in zip(seconds, turns, strict=True):
            each.append(timed(step, 1, device))
    return seconds


if __name__ == "__main__":
    main()
