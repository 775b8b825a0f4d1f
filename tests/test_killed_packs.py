"""A process that trains a pack, killed at random moments: the end has the undisturbed run's bits.

Thirty kills, without Ray: `pytest -m slow tests/test_killed_packs.py`.
"""

import math
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import MakeRun

from ltray.files import read_json, sha256_of
from ltray.lottery.pruning import make_masks
from ltray.lottery.snapshot import Snapshot, save_snapshot
from ltray.lottery.tickets import Pack, ready
from ltray.run import Run
from ltray.training import retrain, states
from ltray.training.dense import train_dense
from ltray.training.place import this_place

pytestmark = pytest.mark.slow

KILLS = 10  # of each backend
BETWEEN_STATES = 0.02  # seconds: many states are written within an epoch, and kills meet them


@pytest.mark.parametrize("backend", ["loop", "fused", "csr"])
def test_a_pack_killed_ten_times_ends_with_the_same_bits(make_run: MakeRun, backend: str) -> None:
    keys = {"train__epochs": 60, "sweep__tickets_per_trial": 6, "sweep__backend": backend}
    undisturbed, run = make_run(**keys), make_run(**keys)
    for one in (undisturbed, run):
        trajectory = train_dense(one, 0, this_place(), lambda _row: None)
        make_masks(one.experiment, one.folder.replicate(0), trajectory)
    (pack,) = ready(run.experiment, set())
    _, seconds = life(undisturbed, pack, math.inf)
    lots = random.Random(backend)
    for number in range(KILLS):
        ended, _ = life(run, pack, lots.uniform(0.0, seconds / KILLS))
        assert not ended, f"it ended before kill {number + 1}"
    ended, _ = life(run, pack, math.inf)
    assert ended
    for ticket in pack.tickets:
        of, other = (one.folder.replicate(0).ticket(ticket.name) for one in (run, undisturbed))
        assert sha256_of(of.weights) == sha256_of(other.weights)
        assert read_json(of.attempts)["attempts"] == 1 + KILLS


def life(run: Run, pack: Pack, longest: float) -> tuple[bool, float]:
    """A process that goes on with a pack until it is killed: whether it ended, after how long."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=train, args=(run, pack, there))
    process.start()
    there.close()
    here.recv()  # it trains, and has written a first state
    started = time.monotonic()
    process.join(None if longest == math.inf else longest)
    seconds = time.monotonic() - started
    ended = process.exitcode == 0
    process.kill()
    process.join()
    return ended, seconds


def train(run: Run, pack: Pack, to_parent: Connection) -> None:
    """What the process does."""
    unsaid = ["training"]

    def save_and_say_so(path: Path, state: Snapshot) -> None:
        save_snapshot(path, state)
        if unsaid:
            to_parent.send(unsaid.pop())

    with (
        patch.object(retrain, "save_snapshot", save_and_say_so),
        patch.object(states, "LONGEST_LOSS_SECONDS", BETWEEN_STATES),
        patch.object(states, "LARGEST_SHARE", math.inf),
    ):
        retrain.train_pack(run, pack, this_place(), lambda _rows, _ended: None)
