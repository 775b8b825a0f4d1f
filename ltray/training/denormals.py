"""Numbers too small for full precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Within it, this thread's CPU takes numbers below 1.2e-38 (float32) as zero.

    Where a pixel is hardly ever lit, its weights' gradients are zero at almost every step, and
    Adam's means and momenta shrink until a CPU computes with them by microcode, a hundred times as
    slowly; on MNIST that is a third of the time. GPUs have no such trouble.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
