"""Torch's random numbers while a network is put together."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def random_numbers_of(seed: int) -> Iterator[None]:
    """Within it, torch draws on the CPU from `seed`; afterwards it goes on as before."""
    # torch.manual_seed would seed the GPUs too, and fork_rng(devices=[]) would not undo that.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
