from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from test_page import page_of
from test_results import LAYERS, experiment_of, ticket_row, write_dense, write_run

from ltray.analysis.layers import Kept, dead_layers, legend, read_layers
from ltray.experiment import Experiment
from ltray.layout import RunFolder
from ltray.lottery.mask_names import mask_of
from ltray.lottery.masks import save_mask
from ltray.lottery.tickets import grid

SMALL = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0,))


def write_mask(
    run: RunFolder,
    experiment: Experiment,
    sparsity: float,
    kept: dict[str, int],
    *,
    replicate: int = 0,
    weights: Mapping[str, int] = LAYERS,
) -> Path:
    """A mask that keeps the first so many weights of each layer."""
    path = run.replicate(replicate).mask(mask_of(experiment, sparsity, 0).name)
    mask = {name: torch.arange(count) < kept[name] for name, count in weights.items()}
    save_mask(path, mask)
    return path


def kept_of(share: float, **changes: int) -> dict[str, int]:
    return {name: round(share * count) for name, count in LAYERS.items()} | changes


def test_shares_are_read_in_the_order_of_the_network(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_mask(run, SMALL, 0.5, kept_of(0.5))
    write_mask(run, SMALL, 0.9, {"fc1.weight": 1920, "fc2.weight": 0, "fc3.weight": 250})
    found = read_layers(run, SMALL, LAYERS)
    assert list(found.weights) == list(LAYERS)
    assert found.kept[0.9] == {
        "fc1.weight": Kept(0.1, dead=0, masks=1),
        "fc2.weight": Kept(0.0, dead=1, masks=1),
        "fc3.weight": Kept(0.25, dead=0, masks=1),
    }
    assert (found.wanting, found.asked) == (0, 2)
    assert dead_layers([], found) == [(0.9, ["fc2.weight"])]


def test_replicates_are_averaged_and_their_dead_layers_counted(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0,), replicates=3)
    run = RunFolder(tmp_path)
    write_mask(run, experiment, 0.9, kept_of(0.1, **{"fc3.weight": 100}))
    write_mask(run, experiment, 0.9, kept_of(0.1, **{"fc3.weight": 0}), replicate=1)
    found = read_layers(run, experiment, LAYERS)
    assert found.kept[0.9]["fc3.weight"] == Kept(0.05, dead=1, masks=2)
    assert found.kept[0.9]["fc3.weight"].text == "dead 1/2"
    assert (found.wanting, found.asked) == (1, 3)


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"\x02" + b"\0" * 7 + b"{}"])
def test_a_damaged_mask_counts_as_wanting(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    write_mask(run, SMALL, 0.5, kept_of(0.5)).write_bytes(content)
    assert read_layers(run, SMALL, LAYERS).wanting == 2


def test_layers_that_are_kept_dense_have_no_row(tmp_path: Path) -> None:
    dense = SMALL.prune.model_copy(update={"keep_dense": ("fc3.weight",)})
    found = read_layers(RunFolder(tmp_path), SMALL.model_copy(update={"prune": dense}), LAYERS)
    assert list(found.weights) == ["fc1.weight", "fc2.weight"]


@pytest.mark.parametrize(
    ("share", "look", "text"),
    [
        (1.0, "share-0", "100"),
        (0.5, "share-0", "50"),
        (0.4999, "share-1", "50"),
        (0.1, "share-2", "10"),
        (0.0942, "share-3", "9.4"),
        (0.0002, "share-6", "0.02"),
    ],
)
def test_colours_change_where_the_legend_says(share: float, look: str, text: str) -> None:
    of = Kept(share, dead=0, masks=1)
    assert (of.look, of.text) == (look, text)
    assert look in dict(legend())


def test_page_shows_shares_and_marks_the_dead(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    write_mask(run, SMALL, 0.5, kept_of(0.5))
    assert "Of 2 masks that the grid asks for, 1 is not there yet" in page_of(run, SMALL).text
    write_mask(run, SMALL, 0.9, {"fc1.weight": 1920, "fc2.weight": 0, "fc3.weight": 250})
    text = page_of(run, SMALL).text
    assert "not there yet" not in text
    assert "fc1.weight19,2005010" in text
    assert "fc2.weight30,00050dead" in text
    assert "90 % sparsity: fc2.weight" in text


def test_page_without_masks_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_dense(run, 0)
    assert "There are no masks to tell" in page_of(run, SMALL).text


def test_a_deep_network_has_a_figure_and_a_table_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"layer{number}.weight": 1000 for number in range(54)}
    monkeypatch.setattr("test_results.LAYERS", many)
    run = write_run(tmp_path, SMALL)
    for sparsity in SMALL.prune.sparsities:
        kept = {name: 1000 - round(1000 * sparsity) for name in many}
        write_mask(run, SMALL, sparsity, kept | {"layer7.weight": 0}, weights=many)
    page = page_of(run, SMALL)
    assert page.tags.count("i") >= 2 * 54
    assert "All 54 layers in numbers" in page.text
    assert "layer53.weight1,0005010" in page.text


def test_a_tickets_dead_layers_are_told_without_its_mask(tmp_path: Path) -> None:
    found = read_layers(RunFolder(tmp_path), SMALL, LAYERS)
    row: dict[str, Any] = ticket_row(grid(SMALL)[1], dead_layers=["fc3.weight"])
    assert dead_layers([row], found) == [(0.9, ["fc3.weight"])]
