"""Where a pack is trained: its device, and how torch is set up for it."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ltray import host
from ltray.memory import keep_freed_memory


@dataclass(frozen=True)
class Place:
    """One process and what it was given.

    Attributes:
        node: address or name of the machine.
        gpus: how many the process was given, also where torch finds none of them.
        threads: CPUs of the trial. On a CPU the first computes and the others only decode.
        cuda_visible_devices: as it was set for the trial; empty without GPUs.
        leaves: gives what is said of the machine's end, empty while nothing is; None where nobody
            ever says it.
    """

    device: torch.device
    gpus: int
    threads: int
    node: str
    cuda_visible_devices: str
    leaves: Callable[[], str] | None = None

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """One for each GPU that the process was given; a pretended one is the CPU."""
        if self.gpus > 1 and self.device.type == "cuda":
            return tuple(torch.device("cuda", number) for number in range(self.gpus))
        return (self.device,) * max(1, self.gpus)

    @property
    def device_name(self) -> str:
        """`cpu`, or the GPU's model."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return "cpu"

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        """The GPUs' own names, by which NVML finds them too; none on a CPU."""
        if self.device.type != "cuda":
            return ()
        return tuple(f"GPU-{torch.cuda.get_device_properties(one).uuid}" for one in self.devices)


def this_place(gpus: int = 0, threads: int = 1, node: str | None = None) -> Place:
    """Set torch up for exact training in this process and say where that is.

    The GPU is the process's current one. Ray Train lets each process of a node see the GPUs of all
    and makes its own the current one; where it sees only its own, that is the first.

    Args:
        gpus: how many the trial was given. Where torch finds none of them (a pretended one), the
            place is a CPU, and the device column says so.
        threads: CPUs of the trial.
    """
    keep_freed_memory()
    # Else torch's compiler would start a process for each CPU of the machine, in every trial.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(1, threads)))
    torch.set_num_threads(1)  # more would change the order of sums, and crowd the other trials
    on_gpu = gpus > 0 and torch.cuda.is_available()
    if on_gpu:
        _make_gpu_deterministic()
    return Place(
        device=torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu"),
        gpus=gpus,
        threads=threads,
        node=node or socket.gethostname(),
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else "",
    )


def memory_for_pack(device: torch.device) -> int:
    """Bytes that a pack's networks and steps may fill.

    Of a GPU nine tenths of what is free; of a CPU's memory half, shared by one process per CPU.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + unused) * 9 // 10
    return host.memory() // 2 // host.cpus()


def _make_gpu_deterministic() -> None:
    """Choose kernels that give the same bits each time; one thread of a CPU does so anyway."""
    # cuBLAS reads it when it starts: without it some of its sums have no fixed order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)  # imports the compiler: 4 s
    # Else every tensor that a kernel is about to fill is filled with NaN before.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
