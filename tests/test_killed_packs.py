"""A process that trains a pack, killed at random moments: the end has the undisturbed run's bits.

Thirty kills, without Ray: `pytest -m slow tests/test_killed_packs.py`.
"""

import math
import multiprocessing
import random
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import MakeRun

from ltray.files import read_json, sha256_of
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import Snapshot, save_snapshot
from ltray.lottery.tickets import Pack
from ltray.run import Run
from ltray.training import retrain, states
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks

pytestmark = pytest.mark.slow

KILLS = 10  # of each backend
LAST_KILL = 0.9  # of all steps, at most
BETWEEN_STATES = 0.02  # seconds: many states are written within an epoch, and kills meet them


@pytest.mark.parametrize("backend", ["loop", "fused", "csr"])
def test_a_pack_killed_ten_times_ends_with_the_same_bits(make_run: MakeRun, backend: str) -> None:
    keys = {"train__epochs": 60, "sweep__tickets_per_trial": 6, "sweep__backend": backend}
    undisturbed, run = make_run(**keys), make_run(**keys)
    for one in (undisturbed, run):
        train_dense(one, 0, this_place(), lambda _row: None)
        make_masks(one, 0)
    (pack,) = ready(run.experiment, set())
    steps = life(undisturbed, pack)
    lots = random.Random(backend)
    for kill in sorted(lots.uniform(0, LAST_KILL * steps) for _ in range(KILLS)):
        life(run, pack, kill, lots.uniform(0.0, BETWEEN_STATES))
    life(run, pack)
    for ticket in pack.tickets:
        of, other = (one.folder.replicate(0).ticket(ticket.name) for one in (run, undisturbed))
        assert sha256_of(of.weights) == sha256_of(other.weights)
        assert read_json(of.attempts)["attempts"] == 1 + KILLS


def life(run: Run, pack: Pack, kill: float = math.inf, later: float = 0.0) -> int:
    """A process that goes on with a pack.

    Args:
        kill: it is killed so many seconds `later` than it has written a state of this step.

    Returns:
        The step of the last state that was heard of.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=train, args=(run, pack, there))
    process.start()
    there.close()
    step = -1
    with suppress(EOFError):  # it has ended
        while step < kill:
            step = here.recv()
        time.sleep(later)
        process.kill()
    process.join()
    assert process.exitcode == (0 if kill == math.inf else -signal.SIGKILL)
    return step


def train(run: Run, pack: Pack, to_parent: Connection) -> None:
    """What the process does."""

    def save_and_say_so(path: Path, state: Snapshot) -> None:
        save_snapshot(path, state)
        to_parent.send(state.step)

    with (
        patch.object(retrain, "save_snapshot", save_and_say_so),
        patch.object(states, "LONGEST_LOSS_SECONDS", BETWEEN_STATES),
        patch.object(states, "LARGEST_SHARE", math.inf),
    ):
        retrain.train_pack(run, pack, this_place(), lambda _rows, _ended: None)
