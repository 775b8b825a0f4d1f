"""Forward functions whose kernels torch.compile makes.

On a GPU most of a convolutional network's step goes into moving activations through BatchNorm, ReLU
and additions. Compiled, each of these passes over memory once where separate kernels do it several
times.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

MOST_FORMS = 64  # architectures, numbers of networks and devices that one process compiles for
OPTIONS = {
    "deterministic": True,  # else kernels are chosen by timing, and with them the last bits
    "fallback_random": True,  # dropout draws what it draws without the compiler
}


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What computes a model in training, compiled when it is first called with a shape.

    All models of one architecture share what is compiled. It depends on nothing that the process
    did before: one form is made for each shape, and none for several.
    """
    from torch import _dynamo  # takes seconds to import

    _dynamo.config.recompile_limit = MOST_FORMS
    _dynamo.config.fail_on_recompile_limit_hit = True  # else it would go on without the compiler
    return cast(
        Callable[[Tensor], Tensor], torch.compile(model, dynamic=False, options=dict(OPTIONS))
    )
