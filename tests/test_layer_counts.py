"""Shares of layers against the formulas that scopes are defined by."""

from decimal import Decimal
from fractions import Fraction
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltray.experiment import Prune
from ltray.lottery.layer_counts import layer_counts

LENET = {"fc1": torch.Size((300, 784)), "fc2": torch.Size((100, 300)), "fc3": torch.Size((10, 100))}
CONVOLUTIONS = {
    "conv1": torch.Size((16, 3, 3, 3)),
    "conv2": torch.Size((64, 16, 3, 3)),
    "depthwise": torch.Size((64, 1, 3, 3)),
    "fc": torch.Size((10, 64)),
}
SHAPES = {"lenet": LENET, "convolutions": CONVOLUTIONS}


def prune(scope: str, floor: float = 0.0) -> Prune:
    return Prune.model_validate(
        {"sparsities": (0.5,), "scope": scope, "min_layer_density": floor}, strict=False
    )


def counts(
    shapes: dict[str, torch.Size], scope: str, density: str, floor: float = 0.0
) -> dict[str, int]:
    found = layer_counts(shapes, prune(scope, floor), Decimal(density), "none")
    assert found is not None
    return found


def erk_densities(shapes: dict[str, torch.Size], density: Fraction) -> dict[str, Fraction]:
    """As the paper has it: epsilon from all layers that are not dense, until none is above 1."""
    dense: set[str] = set()
    while True:
        raw = {
            name: Fraction(sum(of), prod(of)) for name, of in shapes.items() if name not in dense
        }
        wanted = density * sum(prod(of) for of in shapes.values())
        wanted -= sum(prod(shapes[name]) for name in dense)
        epsilon = wanted / sum(raw[name] * prod(shapes[name]) for name in raw)
        above = {name for name in raw if epsilon * raw[name] > 1}
        if not above:
            return {name: epsilon * raw[name] if name in raw else Fraction(1) for name in shapes}
        # One at a time: the densest first.
        dense.add(max(above, key=lambda name: raw[name]))


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("density", ["1", "0.5", "0.2", "0.1", "0.02", "0.001"])
def test_erk_densities_are_those_of_the_formula(network: str, density: str) -> None:
    shapes = SHAPES[network]
    expected = erk_densities(shapes, Fraction(density))
    assert counts(shapes, "erk", density) == {
        name: round(expected[name] * prod(of)) for name, of in shapes.items()
    }


def test_erk_of_a_lenet_worked_by_hand() -> None:
    # A tenth of 266,200 weights is 26,620, in the proportion of 1084 : 400 : 110 = 1594 parts.
    # fc3 would keep 1,837 of its 1,000: it stays dense, and the others share 25,620 as 1084 : 400.
    assert counts(LENET, "erk", "0.1") == {"fc1": 18714, "fc2": 6906, "fc3": 1000}


def test_balanced_layers_have_equally_many_weights_or_all_of_theirs() -> None:
    # 26,620 / 3 is more than fc3 has; the other two share the rest.
    assert counts(LENET, "balanced", "0.1") == {"fc1": 12810, "fc2": 12810, "fc3": 1000}
    assert counts(LENET, "balanced", "0.003") == {"fc1": 266, "fc2": 266, "fc3": 266}


def test_a_floor_is_kept_before_the_rest_is_shared() -> None:
    # 0.003 x 266,200 = 798.6 weights, of which fc1 first keeps 0.002 x 235,200 = 470.4.
    found = counts(LENET, "balanced", "0.003", floor=0.002)
    assert found == {"fc1": 470, "fc2": 164, "fc3": 164}


@given(
    shapes=st.lists(
        st.lists(st.integers(1, 9), min_size=1, max_size=4).map(torch.Size), min_size=1, max_size=6
    ),
    permille=st.integers(1, 1000),
    scope=st.sampled_from(["erk", "balanced"]),
    floor=st.sampled_from([0.0, 0.001, 0.3]),
)
def test_any_shapes_keep_the_stated_share_within_the_rounding_of_each_layer(
    shapes: list[torch.Size], permille: int, scope: str, floor: float
) -> None:
    density = max(Decimal(permille) / 1000, Decimal(repr(floor)))
    named = {f"t{number}": of for number, of in enumerate(shapes)}
    found = counts(named, scope, str(density), floor)
    total = density * sum(map(prod, shapes))
    assert abs(sum(found.values()) - total) <= Decimal(len(shapes)) / 2
    for name, of in named.items():
        assert round(Decimal(repr(floor)) * prod(of)) <= found[name] <= prod(of)
