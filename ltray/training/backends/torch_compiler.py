"""Forward functions whose kernels torch.compile makes.

On a GPU most of a convolutional network's step goes into moving activations through BatchNorm, ReLU
and additions. Compiled, each of these passes over memory once where separate kernels do it several
times.
"""

import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

MOST_FORMS = 1024  # architectures, numbers of networks and devices that one process compiles for
OPTIONS = {
    "deterministic": True,  # else kernels are chosen by timing, and with them the last bits
    "fallback_random": True,  # dropout draws what it draws without the compiler
}


def why_not(model: nn.Module) -> str | None:
    """Why torch.compile could make nothing here, or None."""
    from torch.utils._triton import has_triton

    on_gpu = next(model.parameters()).device.type == "cuda"
    if on_gpu and not has_triton():
        return "torch.compile needs Triton, which does not work here"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"torch.compile needs Python's headers (python3-dev), and {headers} has no Python.h"
    asked, known = ("CC", ("gcc", "clang", "cc")) if on_gpu else ("CXX", ("g++", "clang++"))
    names = [os.environ[asked]] if asked in os.environ else known
    if not any(map(shutil.which, names)):
        return f"torch.compile needs a compiler, and there is no {' or '.join(names)} here"
    return None


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What computes a model in training, compiled when it is first called with a shape.

    All models of one architecture share what is compiled. It depends on nothing that the process
    did before: one form is made for each shape, and none for several.
    """
    from torch import _dynamo  # takes seconds to import

    # Newer versions of torch keep these for each thread: this one trains.
    _dynamo.config.recompile_limit = _dynamo.config.accumulated_recompile_limit = MOST_FORMS
    _dynamo.config.fail_on_recompile_limit_hit = True  # else it would go on without the compiler
    return cast(
        Callable[[Tensor], Tensor], torch.compile(model, dynamic=False, options=dict(OPTIONS))
    )
