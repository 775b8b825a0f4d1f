"""The small networks of the lottery-ticket papers.

B images, C channels, H W pixels: each network maps [B, C, H, W] to one logit per class.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from ltray.errors import LtrayError

CONV_WIDTHS = (64, 64, 128, 128, 256, 256)
RESNET20_WIDTHS = (16, 32, 64)
RESNET20_BLOCKS = 3
VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def lenet_300_100(classes: int, channels: int, image_size: int) -> nn.Module:
    """Two hidden layers of 300 and 100 units over the flattened image.

    Source: Frankle & Carbin 2019, figure 2 (arXiv 1803.03635), after LeCun et al. 1998; Gaussian
    Glorot initialisation as there.
    """
    network = nn.Sequential(
        OrderedDict(_fully_connected((channels * image_size**2, 300, 100, classes)))
    )
    network.apply(_glorot)
    return network


def conv(layers: int, classes: int, channels: int, image_size: int) -> nn.Module:
    """Conv-2, Conv-4 or Conv-6: a small VGG with a pool after every second convolution.

    The paper's table gives Conv-6 1.7M weights, where the layers that it lists have 2.26M.

    Raises:
        LtrayError: nothing of the image is left after the pools.

    Source: Frankle & Carbin 2019, figure 2 (arXiv 1803.03635); Gaussian Glorot initialisation.
    """
    pools = layers // 2
    _require_size(f"conv{layers}", image_size, at_least=2**pools)
    widths = (channels, *CONV_WIDTHS[:layers])
    pixels = (image_size // 2**pools) ** 2
    network = nn.Sequential(
        OrderedDict(
            [
                *_convolutions(widths),
                *_fully_connected((widths[-1] * pixels, 256, 256, classes)),
            ]
        )
    )
    network.apply(_glorot)
    return network


def _convolutions(widths: tuple[int, ...]) -> Iterator[tuple[str, nn.Module]]:
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        yield f"conv{number}", nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        yield f"conv_relu{number}", nn.ReLU()
        if number % 2 == 0:
            yield f"pool{number // 2}", nn.MaxPool2d(2)


def _fully_connected(widths: tuple[int, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Linear layers with a ReLU between each two."""
    yield "flatten", nn.Flatten()
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        if number > 1:
            yield f"fc_relu{number - 1}", nn.ReLU()
        yield f"fc{number}", nn.Linear(inputs, outputs)


def _glorot(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_normal_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class Shortcut(nn.Module):
    """Every so many pixels as they are, and new channels of zeros: option A, without weights."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = new_channels

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C + new channels, H / stride, W / stride], rounded up."""
        if self.stride == 1 and not self.new_channels:
            return images  # what follows would copy them, and their gradient twice
        picked = images[:, :, :: self.stride, :: self.stride]
        return functional.pad(picked, (0, 0, 0, 0, 0, self.new_channels))


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = Shortcut(stride, outputs - inputs)

    def forward(self, images: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride], rounded up."""
        hidden = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        added = self.bn2(self.conv2(hidden)).add_(self.shortcut(images))
        return functional.relu(added, inplace=True)


def resnet20(classes: int, channels: int) -> nn.Module:
    """ResNet-20 for CIFAR: three stages of 16, 32 and 64 channels. Takes images of any size.

    Source: He et al. 2015, section 4.2 (arXiv 1512.03385); initialisation of He et al. 2015
    (arXiv 1502.01852), as there.
    """
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(channels, RESNET20_WIDTHS[0], 3, padding=1, bias=False)),
        ("bn1", nn.BatchNorm2d(RESNET20_WIDTHS[0])),
        ("relu1", nn.ReLU(inplace=True)),
    ]
    inputs = RESNET20_WIDTHS[0]
    for number, outputs in enumerate(RESNET20_WIDTHS, start=1):
        layers.append((f"layer{number}", _stage(inputs, outputs)))
        inputs = outputs
    network = nn.Sequential(OrderedDict([*layers, *_head(inputs, classes)]))
    network.apply(_kaiming)
    return network


def _stage(inputs: int, outputs: int) -> nn.Module:
    """Blocks of one width; where the width grows, the first one halves the image."""
    first = BasicBlock(inputs, outputs, stride=2 if outputs > inputs else 1)
    others = (BasicBlock(outputs, outputs, stride=1) for _ in range(RESNET20_BLOCKS - 1))
    return nn.Sequential(first, *others)


def vgg16_cifar(classes: int, channels: int, image_size: int) -> nn.Module:
    """VGG-16 for CIFAR: BatchNorm, four pools, a mean over what is left, one linear layer.

    As in the lottery-ticket papers, save that convolutions have no bias: BatchNorm follows.

    Raises:
        LtrayError: nothing of the image is left after the pools.

    Source: Simonyan & Zisserman 2015, configuration D (arXiv 1409.1556); with one linear layer as
    in Frankle et al. 2020 (arXiv 1912.05671).
    """
    _require_size("vgg16_cifar", image_size, at_least=2 ** (len(VGG16_STAGES) - 1))
    features = nn.Sequential(*_vgg_layers(channels))
    network = nn.Sequential(
        OrderedDict([("features", features), *_head(VGG16_STAGES[-1][0], classes)])
    )
    network.apply(_kaiming)
    return network


def _vgg_layers(inputs: int) -> Iterator[nn.Module]:
    for stage, (outputs, convolutions) in enumerate(VGG16_STAGES):
        if stage > 0:
            yield nn.MaxPool2d(2)
        for _ in range(convolutions):
            yield nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
            yield nn.BatchNorm2d(outputs)
            yield nn.ReLU(inplace=True)
            inputs = outputs


def _head(width: int, classes: int) -> list[tuple[str, nn.Module]]:
    """The mean over all pixels, then one linear layer."""
    return [
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(width, classes)),
    ]


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _require_size(arch: str, image_size: int, at_least: int) -> None:
    if image_size < at_least:
        raise LtrayError(
            "model.arch",
            f"{arch} takes images of {at_least} pixels per side or more, not {image_size}",
            "set data.crop_size (or data.image_size) higher, or choose another network",
        )
