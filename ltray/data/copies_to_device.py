"""Host arrays to a device, in the order of its work and without waiting for it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def on_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A tensor of these values on a device; on the CPU it may share their memory.

    A copy from ordinary memory to a GPU first waits until the GPU has done everything it was
    given; one from pinned memory takes its turn, so that Python can go on preparing.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
