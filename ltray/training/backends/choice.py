"""Which backends there are, and what each of them can train."""

from collections.abc import Callable

from torch import nn

from ltray.errors import LtrayError
from ltray.training.backends import csr, layers, torch_compiler
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
_WHY_NOT: dict[str, tuple[Callable[[nn.Module], str | None], ...]] = {
    "csr": (csr.why_not,),
    "loop": (),
    "fused": (layers.why_not,),
    "compiled_loop": (torch_compiler.why_not,),
    "compiled_fused": (layers.why_not, torch_compiler.why_not),
}


def open_backend(name: str, seats: Seats) -> Backend:
    """The backend of this name for some networks."""
    return BACKENDS[name](seats)


def why_not(name: str, model: nn.Module) -> str | None:
    """Why a backend cannot train such networks, or None."""
    reasons = (why_not(model) for why_not in _WHY_NOT[name])
    return next((reason for reason in reasons if reason), None)


def may_be_csr(wanted: str, model: nn.Module) -> bool:
    """Whether on a CPU kept weights alone may be computed, so that it matters how many there are.

    Args:
        wanted: `sweep.backend`.
        model: on a CPU.
    """
    return wanted in {"auto", "csr"} and why_not("csr", model) is None


def check_covers(name: str, model: nn.Module) -> None:
    """Find out whether a backend can train such networks.

    Raises:
        LtrayError: it cannot.
    """
    reason = why_not(name, model) if name in BACKENDS else None  # auto takes what can
    if reason:
        raise LtrayError(
            "sweep.backend", f"{name} cannot train this network: {reason}", "write auto or loop"
        )
