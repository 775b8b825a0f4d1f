"""What a driver makes of dense runs and masks: whole, lost, dead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import MakeRun, train_without_ray

from ltray.analysis.results import collect
from ltray.cluster.dense_runs import make_all_masks, whole_trajectories, with_lost_masks
from ltray.cluster.tasks import CpuWork
from ltray.files import sha256_of
from ltray.lottery.tickets import chains, grid
from ltray.run import Run


class Here:
    """CpuWork in this process."""

    def __init__(self) -> None:
        self.parts: list[int] = []

    def on_each(self, work: Callable[[int], None], parts: Sequence[int], _: str) -> Iterator[None]:
        self.parts += parts
        return map(work, parts)


def make_masks_here(
    run: Run, here: Here | None = None, replicates: Sequence[int] = (0,)
) -> list[str]:
    """The lines that are said of it."""
    lines: list[str] = []
    cpu_work = cast("CpuWork", here or Here())
    make_all_masks(run, collect(run.folder), replicates, cpu_work, lines.append)
    return lines


@pytest.mark.parametrize("style", ["one_shot", "iterative"])
def test_masks_that_were_lost_are_made_again_to_the_same_bits(
    style: str, make_run: MakeRun
) -> None:
    run = make_run(prune__style=style, prune__sparsities=[0.5, 0.8, 0.9], reset__epochs=[0, 1])
    train_without_ray(run)
    rows = collect(run.folder)
    assert with_lost_masks(run, rows) == []
    (chain, _) = chains(grid(run.experiment))
    paths = [run.folder.replicate(0).mask(ticket.mask) for ticket in chain]
    before = list(map(sha256_of, paths))
    for path in paths[1:]:
        path.unlink()
    assert with_lost_masks(run, rows) == [0]
    make_masks_here(run)
    assert list(map(sha256_of, paths)) == before
    assert with_lost_masks(run, rows) == []


def test_a_level_that_a_search_has_not_looked_at_has_its_mask_too(make_run: MakeRun) -> None:
    run = make_run(prune__search="matching", prune__sparsities=[0.5, 0.8])
    train_without_ray(run)
    grown = make_run(prune__search="matching", prune__sparsities=[0.3, 0.5, 0.8])
    denser = replace(run, experiment=grown.experiment)
    assert with_lost_masks(denser, collect(run.folder)) == [0]
    make_masks_here(denser)
    assert with_lost_masks(denser, collect(run.folder)) == []


def test_no_process_looks_for_masks_of_chains_that_are_all_there(make_run: MakeRun) -> None:
    run = make_run(prune__style="iterative", prune__sparsities=[0.5, 0.8], reset__epochs=[0])
    train_without_ray(run)
    whole, without, lost = Here(), Here(), Here()
    make_masks_here(run, whole)
    run.folder.replicate(0).mask(grid(run.experiment)[0].mask).unlink()
    make_masks_here(run, without, replicates=())  # its trajectory is not whole
    make_masks_here(run, lost)
    assert (whole.parts, without.parts, lost.parts) == ([], [], [0])


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_step_that_was_lost_is_noticed(which: int, make_run: MakeRun) -> None:
    run = make_run(prune__sparsities=[0.5], reset__epochs=[1])
    train_without_ray(run)
    steps: list[Path] = sorted(run.folder.replicate(0).trajectory.parent.glob("step-*"))
    assert whole_trajectories(run)
    steps[which].unlink()
    assert not whole_trajectories(run)


def test_layers_with_nothing_left_are_told_in_every_launch(make_run: MakeRun) -> None:
    keys: dict[str, Any] = {"prune__sparsities": [0.5, 0.9999], "prune__scope": "global"}
    run = make_run(**keys, prune__output_rate=1, reset__epochs=[0])
    train_without_ray(run)
    first, again = make_masks_here(run), make_masks_here(run)
    assert first == again
    (line,) = first
    assert line.startswith("replicate 0, sparsity 0.9999: nothing is left of fc")
