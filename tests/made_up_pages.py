"""Reports of made-up runs in the states that a reader meets: whole, half-finished, in trouble."""

from collections.abc import Callable
from pathlib import Path

import torch
from per_image import write_all_correct
from test_comparison import run_of
from test_page import launch
from test_results import (
    LAYERS,
    LEVELS,
    VAL_IMAGES,
    experiment_of,
    failed_row,
    ticket_row,
    write_dense,
)

from ltray.analysis.columns import Row
from ltray.analysis.comparison import write_comparison
from ltray.analysis.page import write_report
from ltray.experiment import Experiment
from ltray.files import write_json
from ltray.lottery.mask_names import mask_of
from ltray.lottery.masks import save_mask
from ltray.lottery.tickets import Ticket
from ltray.lottery.trajectory import read_trajectory, write_trajectory
from ltray.run import Run

DEEP = {f"features.{number}.conv.weight": 900 * (number + 1) for number in range(53)}


def write_pages(root: Path) -> dict[str, Path]:
    """A page of each kind, and one of two runs; name -> its path."""
    controls = ("shuffled_mask", "random_init")
    one, several = experiment_of(), experiment_of(replicates=3, controls=controls)
    controlled = experiment_of(controls=controls)
    runs = {
        "finished": _made(root, "finished", one),
        "half-finished": _made(root, "half-finished", controlled, _half, masks=3),
        "in-trouble": _made(root, "in-trouble", one, _in_trouble),
        "replicates": _made(root, "replicates", several, layers=DEEP),
        "nothing": _made(root, "nothing", one, lambda _ticket: None, masks=0),
    }
    pages = {name: write_report(run.folder, run.experiment) for name, run in runs.items()}
    pages["two"] = write_comparison(runs["finished"], runs["in-trouble"])
    pages["two-replicates"] = write_comparison(
        runs["replicates"], _made(root, "other", several.model_copy(update={"seed": 7}))
    )
    return pages


def _made(
    root: Path,
    name: str,
    experiment: Experiment,
    row_of: Callable[[Ticket], Row | None] = ticket_row,
    *,
    masks: int = len(LEVELS),
    layers: dict[str, int] = LAYERS,
) -> Run:
    run = run_of(root, f"{name}-0a1b2c3d", experiment, row_of)
    for number in range(experiment.replicates):
        write_dense(run.folder, number)
        trajectory = read_trajectory(run.folder.replicate(number))
        assert trajectory is not None
        deep = trajectory.model_copy(update={"prunable": layers})
        write_trajectory(run.folder.replicate(number), deep)
        for sparsity in LEVELS[:masks]:
            path = run.folder.replicate(number).mask(mask_of(experiment, sparsity, 0).name)
            save_mask(path, {layer: _kept(layer, sparsity, layers) for layer in layers})
    write_all_correct(run.folder)
    write_json(run.folder.launches, {"launches": [launch(), launch()]})
    return run


def _kept(layer: str, sparsity: float, layers: dict[str, int]) -> torch.Tensor:
    """The middle layers lose most, and all they have at the sparsest level."""
    place = list(layers).index(layer) / max(1, len(layers) - 1)
    share = (1 - sparsity) * (0.4 + 2 * abs(place - 0.5))
    count = 0 if sparsity > 0.98 and share < 0.005 else round(share * layers[layer])
    return torch.arange(layers[layer]) < count


def _half(ticket: Ticket) -> Row | None:
    return ticket_row(ticket) if ticket.sparsity < 0.95 and ticket.reset_epoch < 4 else None


def _in_trouble(ticket: Ticket) -> Row:
    if ticket.sparsity == 0.99:
        return failed_row(ticket, status="diverged", error="the loss is not finite")
    if ticket.reset_epoch == 8 and ticket.sparsity > 0.85:
        return failed_row(ticket, error="OutOfMemoryError: " + "CUDA out of memory. " * 12)
    row = ticket_row(ticket)
    return {**row, "val_top1": row["val_top1"] - round(9 * ticket.sparsity**8) / VAL_IMAGES}
