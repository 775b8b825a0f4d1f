"""Every backend against `loop`, ticket by ticket, without files and without Ray."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from packs import (
    CLASSES,
    NETWORKS,
    OPTIMIZERS,
    RATES,
    assert_zero_outside,
    batches_for,
    pack_of,
    recipe_of,
    state_of,
    train,
)
from torch import nn

from ltray.errors import LtrayError
from ltray.models.networks import build
from ltray.training.backends import torch_compiler
from ltray.training.backends.choice import UNCOMPILED, check_covers, open_backend, why_not
from ltray.training.recipe import Recipe

CANNOT_COMPILE = torch_compiler.why_not(nn.Linear(1, 1))
COMPILES = pytest.mark.skipif(CANNOT_COMPILE is not None, reason=str(CANNOT_COMPILE))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("backend", "arch", "optimizer"),
    [
        ("fused", "conv2", "sgd"),
        ("fused", "resnet20", "sgd"),
        *(("fused", "lenet_300_100", optimizer) for optimizer in OPTIMIZERS),
        *(("csr", "lenet_300_100", optimizer) for optimizer in OPTIMIZERS),
    ],
)
def test_twenty_steps_equal_those_of_the_loop(backend: str, arch: str, optimizer: str) -> None:
    check_equal(backend, arch, optimizer, steps=20, count=3)


@pytest.mark.long
def test_the_first_steps_with_depthwise_convolutions_equal_those_of_the_loop() -> None:
    check_equal("fused", "mobilenet_v2", "sgd", steps=2, count=2)


def test_csr_trains_biases_where_no_weight_is_left_without_momentum() -> None:
    recipe = recipe_of(optimizer="sgd", lr=1e-3)
    expected, found = (
        states_after(backend, "lenet_300_100", recipe, steps=5, count=3, sparsity=1.0)
        for backend in ("loop", "csr")
    )
    assert_equal(expected, found)
    assert not expected[0]["model fc1.weight"].any()
    assert expected[0]["model fc3.bias"].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "optimizer"),
    [*((arch, "sgd") for arch in NETWORKS), *(("resnet20", which) for which in OPTIMIZERS)],
)
def test_twenty_steps_of_larger_networks_equal_those_of_the_loop(arch: str, optimizer: str) -> None:
    check_equal("fused", arch, optimizer, steps=20, count=2)


def check_equal(backend: str, arch: str, optimizer: str, steps: int, count: int) -> None:
    keys = OPTIMIZERS[optimizer]
    recipe = recipe_of(**{**keys, "lr": RATES.get(arch, keys["lr"])}, label_smoothing=0.1)
    expected, found = (states_after(name, arch, recipe, steps, count) for name in ("loop", backend))
    assert_equal(expected, found)


def assert_equal(
    expected: list[dict[str, torch.Tensor]], found: list[dict[str, torch.Tensor]]
) -> None:
    """Up to what rounding leaves in float64."""
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            # Momenta are sums of gradients, which no normalisation keeps near 1.
            scale = 1.0 if key.startswith("model ") else max(1.0, float(value.abs().max()))
            torch.testing.assert_close(other[key], value, rtol=1e-12, atol=1e-12 * scale, msg=key)


def states_after(  # noqa: PLR0917 (what tests vary)
    backend: str, arch: str, recipe: Recipe, steps: int, count: int, sparsity: float = 0.5
) -> list[dict[str, torch.Tensor]]:
    """Of each ticket of a pack that is gone when it returns: some networks are large."""
    pack = pack_of(arch, count, recipe, torch.float64, sparsity=sparsity)
    train(backend, pack, arch, steps)
    return [state_of(network) for network in pack]


@pytest.mark.long
def test_masked_weights_and_their_state_stay_exactly_zero_over_200_steps() -> None:
    for keys in OPTIMIZERS.values():
        for backend in UNCOMPILED:
            pack = pack_of("lenet_300_100", 3, recipe_of(**keys), torch.float32)
            train(backend, pack, "lenet_300_100", 200)
            for network in pack:
                assert network.step == 200
                for name, kept in network.factors.items():
                    assert_zero_outside(network, name, kept.bool())


@pytest.mark.parametrize(
    ("backend", "arch", "sparsity"),
    [
        ("fused", "lenet_300_100", 0.5),
        ("fused", "resnet20", 0.5),
        ("csr", "lenet_300_100", 0.5),
        ("csr", "lenet_300_100", 0.75),
        ("csr", "lenet_300_100", 0.95),
    ],
)
def test_an_empty_seat_leaves_the_bits_of_the_others_as_they_are(
    backend: str, arch: str, sparsity: float
) -> None:
    recipe = recipe_of(**OPTIMIZERS["sgd"])
    whole, others = (pack_of(arch, 4, recipe, torch.float32, sparsity=sparsity) for _ in range(2))
    train(backend, whole, arch, 10)
    train(backend, [others[0], None, others[2], None], arch, 10)
    for place in (0, 2):
        expected, found = state_of(whole[place]), state_of(others[place])
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert others[1].step == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_csr_gives_a_ticket_the_bits_that_it_has_alone(precision: str) -> None:
    recipe = recipe_of(**OPTIMIZERS["adam"], precision=precision)
    packs, alone = (
        [
            pack_of("lenet_300_100", 3, recipe, torch.float32, sparsity=sparsity)
            for sparsity in (0.5, 0.75, 0.98)
        ]
        for _ in range(2)
    )
    train("csr", [network for pack in packs for network in pack], "lenet_300_100", 10)
    for pack, other in zip(packs, alone, strict=True):
        for one, by_itself in zip(pack, other, strict=True):
            train("csr", [by_itself], "lenet_300_100", 10)
            expected, found = state_of(by_itself), state_of(one)
            assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_network_whose_loss_is_not_finite_disturbs_no_other() -> None:
    recipe = recipe_of(**OPTIMIZERS["sgd"])
    whole, ill = (pack_of("resnet20", 3, recipe, torch.float32) for _ in range(2))
    with torch.no_grad():
        ill[1].parameters["conv1.weight"].fill_(torch.nan)
    train("fused", whole, "resnet20", 5)
    train("fused", ill, "resnet20", 5)
    assert ill[1].loss_sum.isnan()
    for place in (0, 2):
        expected, found = state_of(whole[place]), state_of(ill[place])
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("backend", "arch"),
    [
        ("fused", "resnet20"),
        ("csr", "lenet_300_100"),
        pytest.param("compiled_loop", "conv2", marks=(COMPILES, pytest.mark.long)),
        pytest.param("compiled_fused", "resnet20", marks=(COMPILES, pytest.mark.slow)),
    ],
)
def test_evaluated_between_steps_all_gives_what_the_loop_gives(backend: str, arch: str) -> None:
    recipe = recipe_of(**OPTIMIZERS["sgd"])
    channels, size = NETWORKS[arch]
    source = torch.Generator().manual_seed(5)
    images = torch.rand(300, channels, size, size, generator=source, dtype=torch.float64)
    given: dict[str, list[torch.Tensor]] = {}
    states: dict[str, list[dict[str, torch.Tensor]]] = {}
    for name in ("loop", backend):
        pack = pack_of(arch, 3, recipe, torch.float64)
        together = open_backend(name, tuple(pack))
        for number, (batch, labels) in enumerate(batches_for(arch, 4, torch.float64)):
            together.train_step(batch, labels)
            if number == 2:
                together.train(False)
                with torch.inference_mode():
                    given[name] = [logits.clone() for logits in together.logits(images)]
                together.train(True)
        together.settle()
        states[name] = [state_of(network) for network in pack]
    for expected, found in zip(given["loop"], given[backend], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_equal(states["loop"], states[backend])


@pytest.mark.long
def test_a_trial_compiles_on_its_own_cpus_only() -> None:
    code = (
        "from ltray.training.place import this_place; this_place(threads=3);"
        "from torch._inductor import config; print(config.compile_threads)"
    )
    unset = {key: value for key, value in os.environ.items() if not key.startswith("TORCHINDUCTOR")}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=unset, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


def test_compiled_steps_are_refused_where_there_is_no_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("conv2", CLASSES, 3, 32, seed=0)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(LtrayError, match="there is no no-such-compiler here") as caught:
        check_covers("compiled_loop", model)
    assert "write auto or loop" in str(caught.value)


def test_dropout_of_images_is_left_to_the_loop() -> None:
    layers = (nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, CLASSES))
    reason = why_not("fused", nn.Sequential(*layers))
    assert reason == "its first Dropout comes before a Flatten"


def test_what_fused_cannot_train_is_said_with_the_layer() -> None:
    model = build("densenet121", CLASSES, 3, 32, seed=0)
    check_covers("loop", model)
    with pytest.raises(LtrayError, match="DenseNet") as caught:
        check_covers("fused", model)
    assert "write auto or loop" in str(caught.value)


def flat(*layers: torch.nn.Module) -> torch.nn.Module:
    """A network of rows of 48 features."""
    return nn.Sequential(nn.Flatten(), *layers)


def hooked() -> torch.nn.Module:
    model = flat(nn.Linear(48, 10))
    model.register_forward_hook(lambda _module, _images, logits: 2 * logits)
    return model


def half_frozen() -> torch.nn.Module:
    """As half of a weight is kept from training in many a script."""
    layer = nn.Linear(48, 10)
    half = (torch.arange(48) < 24).float()
    layer.weight.register_hook(half.mul)  # type: ignore[no-untyped-call]
    return flat(layer)


def watched() -> torch.nn.Module:
    layer = nn.Linear(48, 10)
    layer.weight.register_post_accumulate_grad_hook(print)  # type: ignore[no-untyped-call]
    return flat(layer)


def with_a_fixed_bias() -> torch.nn.Module:
    layer = nn.Linear(48, 10, bias=False)
    del layer.bias
    layer.register_buffer("bias", torch.ones(10))
    return flat(layer)


class OwnSequence(nn.Sequential):
    """Of a person: its forward() may do anything."""


def frozen() -> torch.nn.Module:
    return flat(nn.Linear(48, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 10))


def with_a_weight_of_its_own() -> torch.nn.Module:
    model = flat(nn.Linear(48, 10))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    return model


RELU = nn.ReLU()
# Images are 3 x 4 x 4. Networks of known layers that do something else than they seem to.
PECULIAR: dict[str, tuple[torch.nn.Module, str]] = {
    "own class": (OwnSequence(nn.Flatten(), nn.Linear(48, 10)), "OwnSequence"),
    "hook": (hooked(), "hook"),
    "frozen": (frozen(), "1.weight is kept from training"),
    "half frozen": (half_frozen(), "1.weight has a hook"),
    "watched": (watched(), "1.weight has a hook"),
    "fixed bias": (with_a_fixed_bias(), "1.bias is no parameter"),
    "one layer twice": (
        flat(nn.Linear(48, 8), RELU, nn.Linear(8, 8), RELU, nn.Linear(8, 10)),
        "two places",
    ),
}
NOT_FUSED: dict[str, tuple[torch.nn.Module, str]] = {
    **PECULIAR,
    "own weight": (with_a_weight_of_its_own(), "scale of its own"),
    "BatchNorm without weights": (
        nn.Sequential(nn.Conv2d(3, 10, 4), nn.BatchNorm2d(10, affine=False), nn.Flatten()),
        "1 lacks weights",
    ),
    "BatchNorm first": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 10, 4)), "0 comes before"),
    "groups first": (nn.Sequential(nn.Conv2d(3, 3, 3, groups=3)), "0 comes before"),
    "Dropout first": (flat(nn.Dropout(), nn.Linear(48, 10)), "1 comes before"),
    "pixels": (nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(48, 10)), "before a Flatten"),
    "rows": (nn.Sequential(nn.Flatten(2), nn.Linear(16, 10)), "does not make rows"),
}
NOT_CSR: dict[str, tuple[torch.nn.Module, str]] = {
    **PECULIAR,
    "no ReLU": (flat(nn.Linear(48, 8), nn.Linear(8, 10)), "one ReLU between each two"),
    "ReLU at the end": (flat(nn.Linear(48, 10), nn.ReLU()), "one ReLU between each two"),
    "ReLU first": (flat(nn.ReLU(), nn.Linear(48, 10)), "one ReLU between each two"),
    "nothing": (nn.Sequential(), "one ReLU between each two"),
    "rows": (nn.Sequential(nn.Flatten(2), nn.Linear(16, 10)), "does not make rows"),
}


@pytest.mark.parametrize(
    ("backend", "case"),
    [*(("fused", case) for case in NOT_FUSED), *(("csr", case) for case in NOT_CSR)],
)
def test_known_layers_that_do_something_unknown_are_left_to_the_loop(
    backend: str, case: str
) -> None:
    model, said = {"fused": NOT_FUSED, "csr": NOT_CSR}[backend][case]
    check_covers("loop", model)
    with pytest.raises(LtrayError, match=said):
        check_covers(backend, model)


OWN = {
    "fused": (
        "nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),"
        " nn.Dropout(0.2), nn.Linear(6 * (image_size // 2) ** 2, classes))"
    ),
    "csr": (
        "nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, 20), nn.ReLU(),"
        " nn.Linear(20, classes, bias=False))"
    ),
}


@pytest.mark.parametrize("backend", OWN)
def test_a_persons_own_sequence_of_known_layers_equals_the_loop(
    backend: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        f"from torch import nn\ndef net(classes, channels, image_size):\n    return {OWN[backend]}"
    )
    check_equal(backend, f"{path}:net", "sgd", steps=20, count=3)
