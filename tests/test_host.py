"""Memory and CPUs as a machine, a container or a batch job has them."""

import os
from pathlib import Path

import pytest

from ltray import host

GIB = 2**30
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 64 CPUs without control groups."""
    monkeypatch.setattr(host, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(host, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)


def limit(folder: Path, own: str, files: dict[str, str]) -> None:
    (folder / "own").write_text(own)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_without_limits_all_is_the_machines(tmp_path: Path) -> None:
    assert (host.memory(), host.cpus()) == (MACHINE, 64)
    limit(tmp_path, "0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"})
    assert (host.memory(), host.cpus()) == (MACHINE, 64)


def test_a_batch_job_has_what_the_groups_around_it_have(tmp_path: Path) -> None:
    files = {
        "slurm/job_1/memory.max": f"{GIB // 2}\n",
        "slurm/job_1/step_0/memory.max": "max\n",
        "slurm/cpu.max": "350000 100000\n",
        "slurm/job_2/memory.max": "1000\n",
    }
    limit(tmp_path, "0::/slurm/job_1/step_0\n", files)
    assert (host.memory(), host.cpus()) == (GIB // 2, 4)


@pytest.mark.parametrize(
    ("memory", "quota", "expected"),
    [
        (str(GIB // 4), "50000", (GIB // 4, 1)),
        ("9223372036854771712", "-1", (MACHINE, 64)),  # how the first version writes no limit
    ],
)
def test_a_container_of_the_first_version_finds_its_limits_at_the_root(
    memory: str, quota: str, expected: tuple[int, int], tmp_path: Path
) -> None:
    files = {
        "memory/memory.limit_in_bytes": memory,
        "cpu/cpu.cfs_quota_us": quota,
        "cpu/cpu.cfs_period_us": "100000",
    }
    limit(tmp_path, "5:memory:/docker/ab12\n3:cpu,cpuacct:/docker/ab12\n1:name=systemd:/\n", files)
    assert (host.memory(), host.cpus()) == expected


def test_a_process_kept_to_some_cpus_counts_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5}, raising=False)
    assert host.cpus() == 2
