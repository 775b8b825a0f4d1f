"""Milliseconds per step and ticket of each uncompiled backend over sparsity, step by step in turn.

    python benchmarks/backends.py [lenet_300_100 ...] [--precision bfloat16] [--tickets 5]

Every backend trains a pack of its own on the same batch; they take turns after every step, so that
whatever else the machine does falls on all. Steps of a round are summed; shown is the median over
rounds.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch
from measuring import conditions, print_table, write_json
from networks import Case, batch, ticket
from steps import finish

from ltray.training.backends.choice import UNCOMPILED, open_backend, why_not
from ltray.training.place import this_place

CASES = {
    case.arch: case
    for case in (
        Case("lenet_300_100", 1, 28, 128),
        Case("conv2", 3, 32, 60),
        Case("resnet20", 3, 32, 128),
        Case("mobilenet_v2", 3, 64, 64),
    )
}
SPARSITIES = (0.0, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("networks", nargs="*", help=f"of {', '.join(CASES)}; the first if none")
    arguments.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    arguments.add_argument("--tickets", type=int, default=5, help="of a pack")
    arguments.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=1.0, help="of a round, about")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    this_place()
    rows = []
    for arch in options.networks or [next(iter(CASES))]:
        for sparsity in options.sparsities:
            case = replace(CASES[arch], precision=options.precision, sparsity=sparsity)
            rows.append(row_of(case, options))
            print("  " + "  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print_table(rows)
    where = conditions("torch")
    print(f"ms per step and ticket, packs of {options.tickets}, n = {options.rounds}; {where}")
    write_json(options.json, {"ms_per_step_and_ticket": rows, "where": where})


def row_of(case: Case, options: argparse.Namespace) -> dict[str, object]:
    """One line of the table."""
    device = torch.device(options.device)
    images, labels = batch(case, device)
    backends = {}
    for name in UNCOMPILED:
        pack = [ticket(case, device, seed=number) for number in range(options.tickets)]
        if why_not(name, pack[0].model) is None:
            backends[name] = open_backend(name, tuple(pack))
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    steps = 3  # warm-up
    for _ in range(1 + options.rounds):
        spent = dict.fromkeys(backends, 0.0)
        for _step in range(steps):
            for name, backend in backends.items():
                started = time.perf_counter()
                backend.train_step(images, labels)
                finish(device)
                spent[name] += time.perf_counter() - started
        for name in backends:
            seconds[name].append(spent[name] / steps / options.tickets)
        steps = max(1, round(options.seconds / sum(spent.values()) * steps))
    medians = {name: round(1000 * statistics.median(each[1:]), 3) for name, each in seconds.items()}
    return {"network": case.arch, "precision": case.precision, "sparsity": case.sparsity, **medians}


if __name__ == "__main__":
    main()
