"""What a weight is worth: name -> weights to name -> scores, larger is kept."""

from collections.abc import Mapping

import torch


def magnitude(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Absolute values of the weights.

    Source: Han et al. 2015 (arXiv 1506.02626); Frankle & Carbin 2019 (arXiv 1803.03635).
    """
    return {name: tensor.abs() for name, tensor in weights.items()}
