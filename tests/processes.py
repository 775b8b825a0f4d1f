"""Some processes of torch.distributed on this machine, to which tests give work."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from ltray.group import Processes

SECONDS = 600.0  # what takes longer has stopped

Work = Callable[..., Any]
"""A function of a module, so that it can be sent; it gets the group, then the arguments."""


class Crew:
    """Processes that wait for work."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def do(self, work: Work, *arguments: Any) -> list[Any]:
        """What each process gives, or the error that it raises, in order of rank."""
        for pipe in self._pipes:
            pipe.send((work, arguments))
        for pipe in self._pipes:
            assert pipe.poll(SECONDS), "a process does not answer"
        return [pipe.recv() for pipe in self._pipes]


@contextmanager
def crew(size: int, store: Path) -> Iterator[Crew]:
    """Start processes that know each other by way of a file; they end with the block."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(rank, size, store, theirs))
        process.start()
        theirs.close()  # so that the end of a process is the end of its pipe
        pipes.append(ours)
        processes.append(process)
    try:
        yield Crew(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(SECONDS)
            process.kill()


def _serve(rank: int, size: int, store: Path, pipe: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a host's name may lead nowhere
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=size)
    group = Processes(torch.device("cpu"))
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send(work(group, *arguments))
        except Exception as error:  # noqa: BLE001 (for the test to judge)
            pipe.send(error)
    distributed.destroy_process_group()
