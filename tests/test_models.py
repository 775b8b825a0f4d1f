"""Networks by name, their initial weights, and what can be pruned in them."""

import math
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ltray.errors import LtrayError
from ltray.models.names import CLASSICS, check_arch, torchvision_archs
from ltray.models.networks import build
from ltray.models.prunable import output_layer, prunable
from ltray.torchvision_import import import_torchvision

ROOT = Path(__file__).parent.parent


@cache
def network(arch: str, classes: int = 10, channels: int = 3, image_size: int = 32) -> nn.Module:
    """One network for many tests, none of which may change it."""
    return build(arch, classes, channels, image_size, seed=0)


def python(program: str, **environment: str) -> str:
    """What `program` prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def layer(module: nn.Module, path: str) -> Any:
    """A submodule, of whatever class it is there."""
    return module.get_submodule(path)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def prunable_size(module: nn.Module) -> int:
    state = module.state_dict()
    return sum(state[name].numel() for name in prunable(module))


# names


@pytest.mark.parametrize(
    ("typo", "meant"), [("lenet_300_10", "lenet_300_100"), ("mobilnet_v2", "mobilenet_v2")]
)
def test_a_misspelt_arch_gets_the_nearest_name(typo: str, meant: str) -> None:
    with pytest.raises(LtrayError, match=rf"(?s)model\.arch: .*'{typo}'; did you mean '{meant}'"):
        check_arch(typo)


@pytest.mark.parametrize("arch", ["fasterrcnn_resnet50_fpn", "raft_small", "r3d_18", "ResNet18"])
def test_only_classification_models_by_their_exact_name_are_archs(arch: str) -> None:
    with pytest.raises(LtrayError, match="no network is called"):
        check_arch(arch)


def test_torchvision_archs_are_those_that_torchvision_registers() -> None:
    models = import_torchvision().models
    assert list(torchvision_archs()) == models.list_models(module=models)


def test_names_are_checked_without_importing_torch() -> None:
    output = python(
        "import sys; from ltray.models.names import check_arch; check_arch('resnet18');"
        "print({'torch', 'torchvision'} & set(sys.modules))"
    )
    assert output == "set()\n"


@pytest.fixture(scope="module")
def without_operators(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process prints where torchvision's compiled operators are not there."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    copy = tmp_path_factory.mktemp("site") / "torchvision"
    copy.mkdir()
    for part in Path(spec.origin).parent.iterdir():
        if not part.name.startswith("_C"):
            (copy / part.name).symlink_to(part)
    output = python(
        "import sys\n"
        "from ltray.models.networks import build\n"
        "build('resnet20', 10, 3, 32, 0)\n"
        "print('torchvision' in sys.modules)\n"
        "try:\n"
        "    import torchvision\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
        "print(tuple(build('resnet18', 10, 3, 32, 0).fc.weight.shape))\n"
        "from torchvision.transforms import v2\n"
        "print(sys.modules['torchvision'].extension._has_ops())\n",
        PYTHONPATH=str(copy.parent),
    )
    return output.splitlines()


@pytest.mark.long
def test_classics_are_built_without_importing_torchvision(without_operators: list[str]) -> None:
    assert without_operators[0] == "False"


def test_torchvision_is_imported_where_its_operators_are_missing(
    without_operators: list[str],
) -> None:
    trap, shape, has_operators = without_operators[1:]
    assert trap == "operator torchvision::nms does not exist"
    assert shape == "(10, 512)"
    assert has_operators == "False"


# shapes and sizes


@pytest.mark.parametrize(
    ("arch", "channels", "image_size", "parameters"),
    [
        # 784 x 300 + 300 + 300 x 100 + 100 + 100 x 10 + 10
        ("lenet_300_100", 1, 28, 266_610),
        # convolutions 1,792 + 36,928; linear 64 x 16^2 x 256 + 256, 65,792 and 2,570
        ("conv2", 3, 32, 38_720 + 4_194_560 + 68_362),
        # and convolutions 73,856 + 147,584; linear 128 x 8^2 x 256 + 256
        ("conv4", 3, 32, 260_160 + 2_097_408 + 68_362),
        # and convolutions 295,168 + 590,080; linear 256 x 4^2 x 256 + 256
        ("conv6", 3, 32, 1_145_408 + 1_048_832 + 68_362),
        # convolutions 432 + 13,824 + 50,688 + 202,752; BatchNorm 2 x (7 x 16 + 6 x 32 + 6 x 64);
        # linear 650
        ("resnet20", 3, 32, 267_696 + 1_376 + 650),
        # convolutions 9 x (3 x 64 + 64^2 + 64 x 128 + 128^2 + 128 x 256 + 2 x 256^2 + 256 x 512
        # + 5 x 512^2); BatchNorm 2 x 4,224; linear 5,130
        ("vgg16_cifar", 3, 32, 14_710_464 + 8_448 + 5_130),
    ],
)
def test_classics_have_the_parameters_of_their_papers(
    arch: str, channels: int, image_size: int, parameters: int
) -> None:
    assert size(network(arch, 10, channels, image_size)) == parameters


@pytest.mark.parametrize(
    ("arch", "channels", "image_size"),
    [
        ("lenet_300_100", 3, 5),
        ("conv2", 1, 3),
        ("conv4", 1, 7),
        ("conv6", 1, 30),
        ("resnet20", 1, 1),
        ("resnet20", 3, 33),
        ("vgg16_cifar", 1, 16),
        ("vgg16_cifar", 3, 40),
        ("mobilenet_v2", 1, 33),
        ("vit_b_16", 1, 48),
    ],
)
def test_networks_give_logits_for_the_images_they_were_built_for(
    arch: str, channels: int, image_size: int
) -> None:
    built = network(arch, 7, channels, image_size)
    logits = built(torch.ones(2, channels, image_size, image_size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("arch", CLASSICS)
def test_every_classic_is_built_by_its_name(arch: str) -> None:
    check_arch(arch)
    assert network(arch)(torch.ones(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arch", "image_size"), [("inception_v3", 75), ("googlenet", 32), ("resnet18", 32)]
)
def test_torchvision_networks_return_one_tensor_while_training(arch: str, image_size: int) -> None:
    built = network(arch, 10, 3, image_size)
    assert built.training
    assert built(torch.ones(2, 3, image_size, image_size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arch", "image_size"),
    [
        ("conv2", 1),
        ("conv6", 7),
        ("vgg16_cifar", 15),
        ("inception_v3", 32),
        ("densenet121", 16),
        ("vit_b_32", 48),
    ],
)
def test_images_that_do_not_fit_are_refused_before_training(arch: str, image_size: int) -> None:
    with pytest.raises(LtrayError, match=rf"(?s)model\.arch: {arch} .*{image_size}.*crop_size"):
        build(arch, 10, 3, image_size, seed=0)


def test_resnet20_shortcuts_have_no_weights() -> None:
    # With the last BatchNorm of every block at zero only the shortcuts are left: every fourth
    # pixel, and zeros in the new channels.
    built = build("resnet20", 10, 3, 9, seed=0).eval()
    for name, parameter in built.named_parameters():
        if ".bn2." in name:
            nn.init.zeros_(parameter)
    images = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    stem = nn.functional.relu(layer(built, "bn1")(layer(built, "conv1")(images)))
    mean = stem[:, :, ::4, ::4].mean(dim=(2, 3))
    output = layer(built, "fc")
    logits = mean @ output.weight[:, :16].T + output.bias
    torch.testing.assert_close(built(images), logits)


# initial weights


@pytest.mark.parametrize("arch", ["lenet_300_100", "conv2", "resnet20", "mobilenet_v2"])
def test_weights_are_a_function_of_the_seed(arch: str) -> None:
    first = network(arch, 10, 1, 32).state_dict()
    again = build(arch, 10, 1, 32, seed=0).state_dict()
    other = build(arch, 10, 1, 32, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in prunable(network(arch)))


def test_weights_do_not_depend_on_the_number_of_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = build("googlenet", 10, 3, 32, seed=0).state_dict()
        torch.set_num_threads(3)
        three = build("googlenet", 10, 3, 32, seed=0).state_dict()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize("arch", ["lenet_300_100", "resnet18"])
def test_the_callers_random_numbers_go_on_as_before(arch: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(arch, 10, 3, 32, seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_callers_random_numbers_on_the_gpu_go_on_as_before() -> None:
    before = torch.cuda.get_rng_state()
    build("lenet_300_100", 10, 3, 32, seed=0)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("arch", ["lenet_300_100", "mobilenet_v2"])
def test_weights_are_drawn_on_the_cpu_whatever_the_default_device(arch: str) -> None:
    with torch.device("meta"):
        built = build(arch, 10, 1, 32, seed=0).state_dict()
    expected = network(arch, 10, 1, 32).state_dict()
    assert all(torch.equal(built[name], expected[name]) for name in expected)


def test_lenet_weights_are_gaussian_glorot_and_biases_zero() -> None:
    built = network("lenet_300_100", 10, 1, 28)
    weights = layer(built, "fc1").weight
    # 235,200 draws: the standard deviation is known to 0.15 %, the share to 0.0004.
    assert weights.std().item() == pytest.approx(math.sqrt(2 / (784 + 300)), rel=0.01)
    beyond_two_deviations = (weights.abs() > 2 * weights.std()).float().mean().item()
    assert beyond_two_deviations == pytest.approx(0.0455, abs=0.003)
    assert not layer(built, "fc1").bias.any()
    assert not layer(built, "fc3").bias.any()


def test_resnet20_weights_are_kaiming() -> None:
    weights = layer(network("resnet20"), "layer3.2.conv2").weight
    # 36,864 draws: the standard deviation is known to 0.4 %.
    assert weights.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)


@pytest.mark.parametrize(
    ("arch", "path", "deviation"),
    [
        ("resnet18", "conv1", math.sqrt(2 / (64 * 7 * 7))),  # Kaiming over the outputs
        ("squeezenet1_1", "features.0", math.sqrt(2 / (1 * 3 * 3))),  # over the inputs
        ("shufflenet_v2_x0_5", "conv1.0", math.sqrt(1 / (3 * 1 * 3 * 3))),  # torch's default
    ],
)
def test_a_first_layer_for_one_channel_is_initialised_as_the_architecture_does(
    arch: str, path: str, deviation: float
) -> None:
    weights = layer(network(arch, 10, 1, 33), path).weight
    assert weights.shape[1] == 1
    # 216 draws or more: the standard deviation is known to 3 %; three channels would be 42 % off.
    assert weights.std().item() == pytest.approx(deviation, rel=0.1)


# what can be pruned


def test_lenet_has_the_prunable_weights_of_the_paper() -> None:
    lenet = network("lenet_300_100", 10, 1, 28)
    assert prunable(lenet) == ("fc1.weight", "fc2.weight", "fc3.weight")
    assert prunable_size(lenet) == 266_200


def test_resnet18s_convolutions_and_its_linear_layer_are_prunable() -> None:
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in (0, 1)]
    names = {f"{block}.conv{number}.weight" for block in blocks for number in (1, 2)}
    names |= {f"layer{stage}.0.downsample.0.weight" for stage in (2, 3, 4)}
    assert set(prunable(network("resnet18"))) == names | {"conv1.weight", "fc.weight"}


def test_mobilenet_v2s_weights_are_prunable_and_its_batchnorm_is_not() -> None:
    mobilenet = network("mobilenet_v2", 1000)
    assert size(mobilenet) == 3_504_872
    assert len(prunable(mobilenet)) == 53
    # BatchNorm has 2 x 17,056 parameters, the linear layer 1,000 biases.
    assert prunable_size(mobilenet) == 3_504_872 - 34_112 - 1_000


def test_attentions_projections_are_prunable() -> None:
    parts = (
        "self_attention.in_proj_weight",
        "self_attention.out_proj.weight",
        "mlp.0.weight",
        "mlp.3.weight",
    )
    names = {f"encoder.layers.encoder_layer_{n}.{part}" for n in range(12) for part in parts}
    expected = names | {"conv_proj.weight", "heads.head.weight"}
    assert set(prunable(network("vit_b_16", 7, 1, 48))) == expected


def test_only_weights_that_multiply_activations_are_prunable() -> None:
    model = nn.ModuleDict(
        {
            "transposed": nn.ConvTranspose1d(2, 2, 1),
            "embedding": nn.Embedding(3, 4),
            "norm": nn.BatchNorm2d(4),
            "layer_norm": nn.LayerNorm(4),
            "linear": nn.Linear(4, 4),
            "attention": nn.MultiheadAttention(4, 2, kdim=3),
        }
    )
    assert prunable(model) == (
        "attention.k_proj_weight",
        "attention.out_proj.weight",
        "attention.q_proj_weight",
        "attention.v_proj_weight",
        "linear.weight",
        "transposed.weight",
    )


def test_a_tensor_with_two_names_counts_once() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    assert prunable(tied) == ("0.weight",)
    assert output_layer(tied) == "0.weight"
    shared = nn.Linear(4, 4)
    assert prunable(nn.Sequential(shared, shared)) == ("0.weight",)
    mixed = nn.Sequential(shared, shared, nn.Linear(4, 4))
    assert prunable(mixed, keep_dense=["1.weight"]) == ("2.weight",)


def test_names_are_in_the_order_of_their_bytes() -> None:
    # UTF-16 and locales would have them in other orders.
    keys = ["\N{GRINNING FACE}", "\N{FULLWIDTH TILDE}", "é", "z", "Z", "l2", "l10"]
    model = nn.ModuleDict({key: nn.Linear(1, 1) for key in keys})
    names = [f"{key}.weight" for key in keys]
    assert prunable(model) == tuple(sorted(names, key=lambda name: name.encode()))


def test_keep_dense_takes_tensors_out() -> None:
    lenet = network("lenet_300_100", 10, 1, 28)
    assert prunable(lenet, keep_dense=["fc3.weight"]) == ("fc1.weight", "fc2.weight")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("fc1.wieght", "is no tensor of the network; did you mean 'fc1.weight'"),
        ("fc1.bias", "is never pruned"),
    ],
)
def test_keep_dense_takes_only_prunable_tensors(name: str, problem: str) -> None:
    with pytest.raises(LtrayError, match=rf"prune\.keep_dense: '{name}' {problem}"):
        prunable(network("lenet_300_100", 10, 1, 28), keep_dense=["fc2.weight", name])


def test_keep_dense_must_leave_something_to_prune() -> None:
    lenet = network("lenet_300_100", 10, 1, 28)
    with pytest.raises(LtrayError, match="nothing to prune"):
        prunable(lenet, keep_dense=prunable(lenet))


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("conv4", "fc3.weight"),
        ("resnet18", "fc.weight"),
        ("squeezenet1_1", "classifier.1.weight"),
    ],
)
def test_the_output_layer_is_the_last_linear_or_convolution(arch: str, name: str) -> None:
    assert output_layer(network(arch, 10, 1, 33)) == name


def test_attentions_input_projection_is_no_output_layer() -> None:
    assert output_layer(nn.MultiheadAttention(4, 2)) == "out_proj.weight"
