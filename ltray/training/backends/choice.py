"""Which backends there are, and what each of them can train."""

from collections.abc import Callable

from torch import nn

from ltray.errors import LtrayError
from ltray.training.backends import csr, layers
from ltray.training.backends.backend import Backend, Seats
from ltray.training.backends.fused import compiled_fused, fused
from ltray.training.backends.loop import Loop, compiled_loop

BACKENDS: dict[str, Callable[[Seats], Backend]] = {
    "csr": csr.csr,
    "loop": Loop,
    "fused": fused,
    "compiled_loop": compiled_loop,
    "compiled_fused": compiled_fused,
}
"""By name. Of those that are about as fast `auto` takes the first: csr computes in float32 whatever
the precision, loop is the simplest."""
COMPILED = {"loop": "compiled_loop", "fused": "compiled_fused"}
UNCOMPILED = [name for name in BACKENDS if name not in COMPILED.values()]
_WHY_NOT = {"fused": layers.why_not, "compiled_fused": layers.why_not, "csr": csr.why_not}


def open_backend(name: str, seats: Seats) -> Backend:
    """The backend of this name for some networks."""
    return BACKENDS[name](seats)


def why_not(name: str, model: nn.Module) -> str | None:
    """Why a backend cannot train such networks, or None."""
    return _WHY_NOT[name](model) if name in _WHY_NOT else None


def check_covers(name: str, model: nn.Module) -> None:
    """Find out whether a backend can train such networks.

    Raises:
        LtrayError: it cannot.
    """
    reason = why_not(name, model)
    if reason:
        raise LtrayError(
            "sweep.backend", f"{name} cannot train this network: {reason}", "write auto or loop"
        )
