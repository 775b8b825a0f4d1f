"""Criteria against networks that are worked by hand, and against their definitions."""

import math
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.nn import functional

from ltray.errors import LtrayError
from ltray.experiment import Prune, decimal
from ltray.lottery import criteria
from ltray.lottery.masks import dead_layers, kept_weights, make_mask
from ltray.models.networks import build
from ltray.models.prunable import output_layer, prunable
from ltray.tensors import Tensors

ONE_LAYER = [[0.5, -0.25], [1.0, 0.5]]
IMAGE = torch.tensor([[1.0, 2.0]]), torch.tensor([0])  # logits 0 and 2, of which 0 is right


def one_layer() -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 2, bias=False))
    network[0].weight = nn.Parameter(torch.tensor(ONE_LAYER))
    return network


def two_layers() -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    network[0].weight = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
    network[1].weight = nn.Parameter(torch.tensor([[0.5, -1.0]]))
    return network


def close(found: torch.Tensor, expected: object) -> bool:
    return torch.allclose(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5)


def test_snip_of_one_layer_worked_by_hand() -> None:
    # The gradient by the logits is (-q, q) with q the share of the wrong class, e^2 / (1 + e^2);
    # by the weights it is that times the image (1, 2).
    q = math.exp(2) / (1 + math.exp(2))
    scores = criteria.snip(one_layer(), ["0.weight"], [IMAGE], seed=0)
    assert close(scores["0.weight"], [[0.5 * q, 0.5 * q], [q, q]])


def test_grasp_of_one_layer_worked_by_hand() -> None:
    # With logits divided by 200, q = e^0.01 / (1 + e^0.01), g = (-q, q) x (1, 2) / 200. Along g the
    # logits change by |(1, 2)|^2 = 5 times (-q, q) / 200^2, the shares of the classes by that times
    # 2 q (1 - q), and Hg is (-1, 1) x (1, 2) times 2 q^2 (1 - q) 5 / 200^3.
    q = math.exp(0.01) / (1 + math.exp(0.01))
    unit = 10 * q**2 * (1 - q) / 200**3
    scores = criteria.grasp(one_layer(), ["0.weight"], [IMAGE], seed=0)
    assert close(scores["0.weight"] / unit, [[-0.5, 0.5], [1.0, 1.0]])


def test_grasp_is_weights_times_the_full_second_derivative_times_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 5, generator=generator).double()
    labels = torch.randint(0, 3, (12,), generator=generator)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    names = ["0.weight", "2.weight"]
    weights = [network.get_parameter(name) for name in names]
    sizes = [weight.numel() for weight in weights]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = zip(names, torch.split(flat, sizes), weights, strict=True)
        given = {name: part.reshape(weight.shape) for name, part, weight in parts}
        logits = torch.func.functional_call(network, given, images)
        return functional.cross_entropy(logits / 200, labels)

    theta = torch.cat([weight.detach().flatten() for weight in weights])
    gradient = jacobian(loss, theta)  # type: ignore[no-untyped-call]
    expected = theta * (hessian(loss, theta) @ gradient)  # type: ignore[no-untyped-call]
    whole = criteria.grasp(network, names, [(images, labels)], seed=0)
    assert torch.allclose(torch.cat([whole[name].flatten() for name in names]), expected)
    # Two halves are worth the whole, but for the factor of adding two means.
    parts = [(images[:6], labels[:6]), (images[6:], labels[6:])]
    halves = criteria.grasp(network, names, parts, seed=0)
    for name in names:
        assert torch.allclose(halves[name] / 4, whole[name])


def test_synflow_of_two_layers_worked_by_hand() -> None:
    # R = 0.5 (1 + 2) + 1 (3 + 0.5) = 5, and both layers' scores add up to it.
    scores = criteria.synflow(two_layers(), ["0.weight", "1.weight"], torch.Size((2,)))
    assert close(scores["0.weight"], [[0.5, 1.0], [3.0, 0.5]])
    assert close(scores["1.weight"], [[1.5, 3.5]])


def test_synflow_leaves_out_what_is_added_and_takes_batchnorm_as_a_factor() -> None:
    """R is the paper's product of weights: BatchNorm's is |gamma| / sqrt(variance + eps)."""
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, eps=0.0), nn.Linear(2, 1))
    state = two_layers().state_dict()
    with torch.no_grad():
        network.get_parameter("0.weight").copy_(state["0.weight"])
        network.get_parameter("2.weight").copy_(state["1.weight"])
        for name in ("0.bias", "1.bias", "2.bias"):
            network.get_parameter(name).fill_(7.0)
        network.get_parameter("1.weight").copy_(torch.tensor([-3.0, 1.0]))
        network.get_buffer("1.running_mean").fill_(5.0)
        network.get_buffer("1.running_var").copy_(torch.tensor([4.0, 1.0]))
    scores = criteria.synflow(network.train(), ["0.weight", "2.weight"], torch.Size((2,)))
    # The first neuron's flow is half as much again.
    assert close(scores["0.weight"], [[0.75, 1.5], [3.0, 0.5]])
    assert close(scores["2.weight"], [[2.25, 3.5]])
    assert scores["0.weight"].dtype == torch.float64


def test_synflow_keeps_layers_alive_behind_biases_as_torch_makes_them() -> None:
    torch.manual_seed(0)
    sizes = [64, 100, 100, 100, 100, 10]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    names = [name for name, _ in network.named_parameters() if name.endswith("weight")]
    prune, density = Prune(sparsities=(0.999,)), Decimal("0.001")
    mask = criteria.synflow_mask(network, names, torch.Size((64,)), prune, density, names[-1])
    assert not dead_layers(mask)


@pytest.mark.parametrize("criterion", [criteria.snip, criteria.grasp])
def test_scores_of_zeros_alone_are_refused(criterion: Callable[..., Tensors]) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2, bias=False))
    nn.init.zeros_(network.get_parameter("1.weight"))
    nn.init.zeros_(network.get_parameter("0.weight"))
    with pytest.raises(LtrayError, match="nothing but zeros: an output layer that starts with"):
        criterion(network, ["0.weight", "1.weight"], [IMAGE], seed=0)


def test_synflow_scores_again_after_each_round() -> None:
    # Of six weights three go, one by one. The two of 0.5 go first, the later before the earlier;
    # then 1.0 and 1.0 are left of the path that they were on, and the later layer's goes. At once
    # it would have been the other way round, 1.0 against 1.5.
    prune = Prune(sparsities=(0.5,))
    names = ["0.weight", "1.weight"]
    mask = criteria.synflow_mask(two_layers(), names, torch.Size((2,)), prune, Decimal("0.5"), "")
    assert mask["0.weight"].tolist() == [[False, True], [True, False]]
    assert mask["1.weight"].tolist() == [[False, True]]
    at_once = make_mask(
        criteria.synflow(two_layers(), names, torch.Size((2,))), prune, Decimal("0.5"), ""
    )
    assert at_once["1.weight"].tolist() == [[True, True]]


@pytest.mark.long
@pytest.mark.parametrize(("arch", "channels", "size"), [("lenet_300_100", 1, 28), ("conv4", 3, 16)])
def test_synflow_keeps_every_layer_alive_at_a_thousandth(
    arch: str, channels: int, size: int
) -> None:
    network = build(arch, 10, channels, size, seed=1)
    names, image = prunable(network), torch.Size((channels, size, size))
    prune, density = Prune(sparsities=(0.999,)), Decimal("0.001")
    weights = {name: network.get_parameter(name).detach().clone() for name in names}
    mask = criteria.synflow_mask(network, names, image, prune, density, output_layer(network))
    total = sum(weight.numel() for weight in weights.values())
    assert kept_weights(mask) == round(density * total)
    assert not dead_layers(mask)
    if arch == "conv4":
        assert dead_layers(make_mask(criteria.magnitude(weights), prune, density, ""))


def test_synflow_is_refused_where_nothing_flows() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU6(), nn.Linear(2, 1, bias=False))
    torch.nn.init.constant_(network.get_parameter("0.weight"), 9.0)
    prune, image = Prune(sparsities=(0.5,)), torch.Size((2,))
    with pytest.raises(LtrayError, match="at their ceiling"):
        criteria.synflow_mask(
            network, ["0.weight", "2.weight"], image, prune, Decimal("0.5"), "2.weight"
        )


def test_random_masks_are_nested_and_another_seeds_are_others() -> None:
    weights = {"a": torch.zeros(40, 50), "b": torch.zeros(3000)}
    prune = Prune(sparsities=(0.5,))
    masks = [
        make_mask(criteria.random(weights, seed=0), prune, 1 - decimal(level), "")
        for level in (0.5, 0.9, 0.99)
    ]
    for denser, sparser in pairwise(masks):
        assert all(not bool((sparser[name] & ~denser[name]).any()) for name in weights)
    # Both layers lose about the same share: five deviations of a draw without replacement.
    assert abs(int(masks[0]["a"].sum()) - 1000) < 5 * math.sqrt(5000 * 0.4 * 0.6 * 0.25)
    other = make_mask(criteria.random(weights, seed=1), prune, Decimal("0.5"), "")
    same = sum(int((other[name] & masks[0][name]).sum()) for name in weights)
    assert abs(same - 1250) < 100


@pytest.mark.parametrize("criterion", [criteria.snip, criteria.grasp])
def test_dropout_is_of_the_seed_and_the_batch_alone(criterion: Callable[..., Tensors]) -> None:
    network = nn.Sequential(nn.Linear(2, 50), nn.Dropout(0.5), nn.Linear(50, 2))

    def scores(batches: int, seed: int, before: int = 1) -> torch.Tensor:
        torch.manual_seed(before)
        return criterion(network, ["0.weight"], [IMAGE] * batches, seed)["0.weight"]

    assert torch.equal(scores(1, seed=0), scores(1, seed=0, before=2))
    assert not torch.equal(scores(1, seed=0), scores(1, seed=1))
    # Would the second batch drop what the first did, two would say what one says.
    one, two = scores(1, seed=0), scores(2, seed=0)
    assert not torch.allclose(two / two.abs().max(), one / one.abs().max())
