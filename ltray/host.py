"""What this machine has for its processes, or the container or batch job that they run in."""

import os
import platform
from collections.abc import Iterator
from math import ceil
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
# Files of control groups of version 2, then of version 1.
MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
TIME_AND_PERIOD = 2  # numbers: that much CPU time in each period


def memory() -> int:
    """Bytes of memory; the kernel ends processes that take more together."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_numbers(group / name) for group in _groups("memory") for name in MEMORY_LIMITS]
    return min([machine, *(limit[0] for limit in limits if limit)])


def cpus() -> int:
    """CPUs that can be busy at once, at least one."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    for group in _groups("cpu"):
        quota = _numbers(group / "cpu.max") or [
            *_numbers(group / "cpu.cfs_quota_us"),
            *_numbers(group / "cpu.cfs_period_us"),
        ]
        if len(quota) == TIME_AND_PERIOD:
            count = min(count, ceil(quota[0] / quota[1]))
    return max(1, count)


def cpu_name() -> str:
    """The CPU's model; its architecture where that is not told."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _groups(controller: str) -> Iterator[Path]:
    """This process's control group and those that it is within, of a limit's kind."""
    if not OWN_GROUPS.is_file():
        return
    for line in OWN_GROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
        own = root / path.lstrip("/")  # in a container it may lie at the root instead
        yield own
        yield from (group for group in own.parents if group.is_relative_to(root))


def _numbers(limit: Path) -> list[int]:
    """What a limit's file says; nothing where there is no file or no limit."""
    if not limit.is_file():
        return []
    return [int(word) for word in limit.read_text().split() if word.isdigit()]
