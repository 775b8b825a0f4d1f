"""What masking costs: the share of a training step, with and without it, step by step in turn.

    python benchmarks/masking.py [--rounds 9] [--steps 40] [--device cpu]

Two copies of a network take the same steps on the same batch; one masks its gradients, as every
ticket does, the other does not. They take turns after every step, so that whatever else the machine
does falls on both. A round's share is the difference of their times over the masking one's.

The anchor: the write-up that ltray grows from spent 93 % of every step on masking.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from measuring import conditions, print_table, summary, write_json

from ltray.experiment import Train
from ltray.lottery.snapshot import Snapshot
from ltray.models.networks import build
from ltray.models.prunable import prunable
from ltray.training.network import Network
from ltray.training.recipe import Recipe

SPARSITY = 0.9
CLASSES = 10
# Network: channels, pixels per side, batch.
CASES = {
    "resnet20": (3, 32, 128),
    "mobilenet_v2": (3, 64, 64),
    "lenet_300_100": (1, 28, 60),
}


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
        arch: shares(arch, device, options.rounds, options.steps * (20 if "lenet" in arch else 1))
        for arch in CASES
    }
    print_table([{"network": arch, **of} for arch, of in found.items()])
    where = conditions("torch")
    print(where)
    write_json(options.json, {"percent_of_a_step": found, "where": where})


def shares(arch: str, device: torch.device, rounds: int, steps: int) -> dict[str, float | int]:
    """Percent of a step that masking takes: median, range, number of rounds; and a step's ms."""
    masking, plain = (network(arch, device, masked) for masked in (True, False))
    images, labels = batch(arch, device)
    turns = [partial(one.train_step, images, labels) for one in (masking, plain)]
    in_turn(turns, 5, device)
    found, milliseconds = [], []
    for number in range(rounds):
        with_masks, without = in_turn(turns if number % 2 else turns[::-1], steps, device)
        if not number % 2:
            with_masks, without = without, with_masks
        found.append(100 * (with_masks - without) / with_masks)
        milliseconds.append(1000 * with_masks / steps)
        print(f"  round {number + 1}/{rounds}, {arch}: {found[-1]:.2f} %", flush=True)
    return {**summary(found), "step_ms": summary(milliseconds)["median"]}


def in_turn(
    turns: list[Callable[[], None]], steps: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of each of two, step by step in turn."""
    seconds = [0.0, 0.0]
    for _ in range(steps):
        for which, step in enumerate(turns):
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[which] += time.perf_counter() - started
    return seconds[0], seconds[1]


def network(arch: str, device: torch.device, masked: bool) -> Network:
    """A ticket, or the same network without masks."""
    channels, size, batch_size = CASES[arch]
    model = build(arch, CLASSES, channels, size, seed=0)
    source = torch.Generator().manual_seed(0)
    mask = {
        name: torch.rand(model.get_parameter(name).shape, generator=source) >= SPARSITY
        for name in prunable(model)
    }
    recipe = Recipe(
        Train(epochs=1000, batch_size=batch_size, lr=1e-4, momentum=0.9, weight_decay=1e-4),
        steps_per_epoch=100,
    )
    state = Snapshot(step=0, model=dict(model.state_dict()))
    placed = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network("ticket", placed, state, mask if masked else {}, recipe, data_seed=0)


def batch(arch: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels."""
    channels, size, batch_size = CASES[arch]
    images = torch.randn(batch_size, channels, size, size, device=device)
    labels = torch.randint(CLASSES, (batch_size,), device=device)
    return images.contiguous(memory_format=torch.channels_last), labels


if __name__ == "__main__":
    main()
