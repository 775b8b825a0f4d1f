from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ltray.errors import LtrayError
from ltray.experiment import Prune, decimal
from ltray.lottery.criteria import magnitude
from ltray.lottery.masks import (
    dead_layers,
    kept_weights,
    load_mask,
    make_mask,
    over_all_layers,
    save_mask,
    shuffled,
    top_k,
)

LEVELS = [0.0, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99]


def scores_with_ties(seed: int) -> dict[str, torch.Tensor]:
    """Two equal layers, one of zeros, one of few distinct values, in no order of name."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.randn(7, 11, generator=generator)
    few = torch.randint(0, 3, (5, 4, 3), generator=generator).float()
    return {"z": layer, "b": layer.clone(), "a.weight": torch.zeros(40), "few": few}


def test_top_k_takes_equal_values_in_order_of_position() -> None:
    values = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 2.0])
    assert top_k(values, 4).tolist() == [False, True, True, True, True, False]
    assert top_k(values, 0).tolist() == [False] * 6
    assert top_k(values, 6).tolist() == [True] * 6


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(5))
def test_density_is_exact_with_ties(level: float, seed: int) -> None:
    scores = magnitude(scores_with_ties(seed))
    total = sum(part.numel() for part in scores.values())
    density = 1 - Decimal(repr(level))
    everywhere = over_all_layers(scores, density, Decimal(0))
    assert kept_weights(everywhere) == round(density * total)
    layerwise = make_mask(scores, Prune(sparsities=(0.5,), scope="layerwise"), density, "few")
    for name, part in layerwise.items():
        assert int(part.sum()) == round(density * scores[name].numel())


def test_the_count_is_worked_out_in_decimal_with_halves_to_even() -> None:
    # (1 - 0.95) * 10 is 0.50000000000000044 in floats, which would round to 1.
    scores = {"a": torch.arange(10.0)}
    assert kept_weights(over_all_layers(scores, 1 - Decimal("0.95"), Decimal(0))) == 0
    scores = {"a": torch.arange(30.0)}
    assert kept_weights(over_all_layers(scores, 1 - Decimal("0.95"), Decimal(0))) == 2


def test_global_ties_go_by_utf8_name_then_position() -> None:
    scores = {"é": torch.ones(2), "z": torch.ones(2), "B": torch.ones(2), "a": torch.ones(2)}
    mask = over_all_layers(scores, Decimal("0.625"), Decimal(0))
    assert {name: part.tolist() for name, part in mask.items()} == {
        "B": [True, True],
        "a": [True, True],
        "z": [True, False],
        "é": [False, False],
    }


@pytest.mark.parametrize(
    "prune",
    [
        Prune(sparsities=(0.5,), scope="global"),
        Prune(sparsities=(0.5,), scope="layerwise", output_rate=0.5),
        Prune(sparsities=(0.5,), scope="global", min_layer_density=0.008),
        Prune(sparsities=(0.5,), scope="erk"),
        Prune(sparsities=(0.5,), scope="erk", min_layer_density=0.008),
        Prune(sparsities=(0.5,), scope="balanced"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_sparser_masks_are_subsets_of_denser_ones(prune: Prune, seed: int) -> None:
    scores = magnitude(scores_with_ties(seed))
    masks = [make_mask(scores, prune, 1 - decimal(level), output_layer="few") for level in LEVELS]
    for denser, sparser in pairwise(masks):
        assert all(not bool((sparser[name] & ~denser[name]).any()) for name in scores)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        hnp.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        min_size=1,
        max_size=4,
    ),
    permille=st.integers(0, 999),
    floor=st.sampled_from(["0", "0.001", "0.1", "0.3"]),
)
def test_any_scores_keep_exactly_the_stated_count_and_the_largest(
    parts: list[np.ndarray], permille: int, floor: str
) -> None:
    scores = {f"t{number}": torch.from_numpy(part) for number, part in enumerate(parts)}
    density = max(1 - Decimal(permille) / 1000, Decimal(floor))
    mask = over_all_layers(scores, density, Decimal(floor))
    assert kept_weights(mask) == round(density * sum(part.size for part in parts))
    for name, part in scores.items():
        assert int(mask[name].sum()) >= int(Decimal(floor) * part.numel())
    if floor == "0":
        kept = torch.cat([scores[name][mask[name]] for name in scores])
        gone = torch.cat([scores[name][~mask[name]] for name in scores])
        assert not kept.numel() or not gone.numel() or kept.min() >= gone.max()


def test_output_layer_keeps_density_to_the_output_rate() -> None:
    scores = {"hidden": torch.rand(1000), "out": torch.rand(1000)}
    prune = Prune(sparsities=(0.99,), scope="layerwise", output_rate=0.5)
    mask = make_mask(scores, prune, Decimal("0.01"), output_layer="out")
    assert int(mask["hidden"].sum()) == 10
    assert int(mask["out"].sum()) == 100  # 0.01 ** 0.5 = 0.1


def test_floor_keeps_the_largest_of_a_layer_that_the_ranking_would_empty() -> None:
    scores = {"wide": torch.arange(10.0, 110.0), "thin": torch.tensor([0.1, 0.3, 0.2, 0.0])}
    assert dead_layers(over_all_layers(scores, Decimal("0.5"), Decimal(0))) == ["thin"]
    mask = over_all_layers(scores, Decimal("0.5"), Decimal("0.5"))
    assert mask["thin"].tolist() == [False, True, True, False]
    assert kept_weights(mask) == 52


def test_a_shuffled_mask_keeps_as_many_of_each_tensor_elsewhere_and_stays_nested() -> None:
    scores = magnitude({"a": torch.randn(40, 30), "b": torch.randn(500)})
    prune = Prune(sparsities=(0.5,))
    masks = [make_mask(scores, prune, Decimal(share), "") for share in ("0.5", "0.1")]
    denser, sparser = (shuffled(mask, seed=3) for mask in masks)
    for name, part in masks[0].items():
        assert denser[name].shape == part.shape
        assert int(denser[name].sum()) == int(part.sum())
        # Half of one are kept in the other by chance; five deviations.
        same = int((denser[name] & part).sum())
        assert abs(same - int(part.sum()) ** 2 / part.numel()) < 5 * (part.numel() / 16) ** 0.5
        assert not bool((sparser[name] & ~denser[name]).any())
    assert not torch.equal(shuffled(masks[0], seed=4)["b"], denser["b"])
    assert torch.equal(shuffled(masks[0], seed=3)["b"], denser["b"])


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(LtrayError, match="not finite"):
        over_all_layers({"a": torch.tensor([1.0, float("nan")])}, Decimal("0.5"), Decimal(0))


def test_mask_files_round_trip_and_are_equal_byte_for_byte(tmp_path: Path) -> None:
    mask = {
        "a": torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(0)) < 0.4,
        "b": torch.zeros(9, dtype=torch.bool),
    }
    save_mask(tmp_path / "one.safetensors", mask)
    save_mask(tmp_path / "two.safetensors", dict(reversed(mask.items())))
    back = load_mask(tmp_path / "one.safetensors")
    assert all(torch.equal(back[name], mask[name]) for name in mask)
    assert back.keys() == mask.keys()
    one, two = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two


def test_packed_masks_take_one_bit_a_weight(tmp_path: Path) -> None:
    save_mask(tmp_path / "m", {"a": torch.ones(80_000, dtype=torch.bool)})
    assert (tmp_path / "m").stat().st_size < 10_000 + 300
