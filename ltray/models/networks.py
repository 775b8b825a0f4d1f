"""Networks by name, with weights that are a function of the seed alone."""

from torch import nn

from ltray.models.classics import conv, lenet_300_100, resnet20, vgg16_cifar
from ltray.models.names import CLASSICS, check_arch
from ltray.models.own_networks import check_own_network, own_network
from ltray.models.seeding import random_numbers_of
from ltray.models.torchvision_networks import torchvision_network
from ltray.torchvision_import import import_torchvision


def build(arch: str, classes: int, channels: int, image_size: int, seed: int) -> nn.Module:
    """The untrained network called `arch`, on the CPU, in training mode.

    Neither reads nor changes the process's random numbers, on no device.

    Args:
        arch: one of `names.CLASSICS`, a torchvision classification model, or `file.py:function`.
        classes: number of outputs.
        channels: channels of the images, 1 or 3.
        image_size: pixels per side as the network sees them.
        seed: decides all initial weights; equal seeds give equal bits.

    Returns:
        A module that maps float images [B, channels, image_size, image_size] to [B, classes].

    Raises:
        LtrayError: there is no such network, or it cannot take such images.
    """
    code = check_arch(arch)
    if code is not None:
        check_own_network(code, classes, channels, image_size)
        return own_network(code, classes, channels, image_size, seed)
    if arch not in CLASSICS:
        import_torchvision()  # here, so that nothing it does can draw from the seed
    with random_numbers_of(seed):
        return construct(arch, classes, channels, image_size)


def construct(arch: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """The untrained network of a name, drawn from torch's random numbers; arguments as of `build`.

    Raises:
        LtrayError: it cannot take such images.
    """
    match arch:
        case "lenet_300_100":
            return lenet_300_100(classes, channels, image_size)
        case "conv2" | "conv4" | "conv6":
            return conv(int(arch[-1]), classes, channels, image_size)
        case "resnet20":
            return resnet20(classes, channels)
        case "vgg16_cifar":
            return vgg16_cifar(classes, channels, image_size)
    return torchvision_network(arch, classes, channels, image_size)
