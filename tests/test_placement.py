"""One device, one trial: what the rows of a sweep say of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import only_run, pretended_gpus, rows, run, write_experiment
from paced import paced_experiment
from placement import devices, most_at_once, overlaps

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(pack: str, device: str, began: int, ended: int, node: str = "a") -> dict[str, Any]:
    return {
        "pack": pack,
        "node": node,
        "cuda_visible_devices": device,
        "started_at": NOON + timedelta(seconds=began),
        "finished_at": NOON + timedelta(seconds=ended),
    }


def test_two_packs_on_one_device_at_a_time_are_found() -> None:
    apart = [
        row("p", "0", 1, 5),
        row("q", "0", 5, 9),
        row("r", "1", 2, 8),
        row("s", "0", 2, 4, "b"),
    ]
    assert overlaps(pd.DataFrame(apart)) == []
    found = overlaps(pd.DataFrame([*apart, row("t", "1,0", 8, 9)]))
    assert [(one.pack, other.pack, one.device) for one, other in found] == [("q", "t", "0")]


def test_tickets_of_a_pack_share_its_device_from_the_first_to_the_last() -> None:
    pack = [row("p", "0", 1, 3), row("p", "0", 5, 9)]
    assert overlaps(pd.DataFrame(pack)) == []
    assert len(overlaps(pd.DataFrame([*pack, row("q", "0", 3, 5)]))) == 1


def test_devices_in_use_are_counted_at_every_moment() -> None:
    some = pd.DataFrame([row("p", "0", 1, 5), row("q", "1", 4, 9), row("r", "0", 5, 9)])
    assert most_at_once(some) == 2
    assert devices(some) == {("a", "0"), ("a", "1")}
    assert most_at_once(pd.DataFrame([row("p", "0,1", 1, 5), row("q", "0", 5, 9, "b")])) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_eight_packs_and_four_devices_are_four_at_once_and_never_two_on_one(tmp_path: Path) -> None:
    document = paced_experiment(
        tmp_path,
        devices=4,
        meeting=str(tmp_path / "meeting"),
        prune__sparsities=[number / 10 for number in range(1, 9)],
        reset__epochs=[0],
    )
    file = write_experiment(tmp_path / "paced.yaml", document)
    with pretended_gpus(4, cpus=4) as (address, _):
        ended = run("sweep", file, "--address", address, folder=tmp_path)
    assert ended.status == 0, ended
    found = pd.DataFrame(rows(only_run(tmp_path / "runs", "paced")))
    assert found["pack"].nunique() == len(found) == 8
    assert overlaps(found) == []
    assert most_at_once(found) == len(devices(found)) == 4
