"""The processes that train one network together, one on each GPU; most often one process alone."""

from collections.abc import Callable
from itertools import count
from typing import TypeVar

import numpy as np
import torch
from torch import distributed

from ltray.errors import StageFailed

Value = TypeVar("Value")
Says = Callable[[], str]
"""Gives a text, empty while there is nothing to say."""

HEARD_EVERY = 20  # calls: one takes milliseconds among processes, and is made after each step


class Group:
    """One process alone.

    In every group all processes call the same methods in the same order, and each waits there for
    the others.

    Attributes:
        rank: this process's number, from 0.
        size: how many processes there are.
    """

    rank = 0
    size = 1

    def part(self, whole: range) -> range:
        """This process's share of some positions: contiguous, as long as the others' or one off."""
        first, stop = (len(whole) * rank // self.size for rank in (self.rank, self.rank + 1))
        return whole[first:stop]

    def first(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the process of rank 0, which alone calls it."""
        return make()

    def joined(self, measured: torch.Tensor) -> torch.Tensor:
        """What all measured on their parts, [part, ...] each, in order of rank: [whole, ...]."""
        return measured

    def every(self, small: torch.Tensor) -> torch.Tensor:
        """Each process's tensor of one shape, in order of rank: [size, ...]."""
        return small[None]

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the sum of all processes' own; they get the same bits."""

    def heard(self, says: Says | None) -> Says:
        """What any of the processes says, heard by all at the same call.

        Args:
            says: this process's own; None where it has nothing to say, ever.
        """
        return says or str


class Processes(Group):
    """All processes of torch.distributed, which was initialised with gloo.

    What is on GPUs is added up by nccl, from GPU to GPU.

    Args:
        device: what this process computes on.

    Raises:
        StageFailed: some processes compute on a GPU and others on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        kinds = self._objects(device.type)
        if len(set(kinds)) > 1:
            found = f"torch sees no GPU in {kinds.count('cpu')} of its {self.size} processes"
            mend = "install a torch with CUDA on every node, or write dense_gpus: 1"
            raise StageFailed("dense run", found, mend)
        self._over = _nccl() if device.type == "cuda" else None

    def first(self, make: Callable[[], Value]) -> Value:
        made = [make() if self.rank == 0 else None]
        distributed.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]

    def joined(self, measured: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(self._objects(measured.cpu().numpy())))

    def every(self, small: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(small) for _ in range(self.size)]
        distributed.all_gather(parts, small, group=self._over)
        return torch.stack(parts)

    def add_up(self, tensor: torch.Tensor) -> None:
        distributed.all_reduce(tensor, group=self._over)

    def heard(self, says: Says | None) -> Says:
        if not any(self._objects(says is not None)):
            return str
        calls = count(1)
        say = says or str

        def hear() -> str:
            return "" if next(calls) % HEARD_EVERY else next(filter(None, self._objects(say())), "")

        return hear

    def _objects(self, mine: Value) -> list[Value]:
        found: list[Value] = [mine] * self.size
        distributed.all_gather_object(found, mine)
        return found


def _nccl() -> distributed.ProcessGroup:
    made = distributed.new_group(backend="nccl")
    assert isinstance(made, distributed.ProcessGroup), "all processes are members"
    return made


ALONE = Group()
