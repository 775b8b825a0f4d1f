"""The names of the networks, without importing torch: a typo is reported within a second."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ltray.errors import LtrayError, did_you_mean
from ltray.own_code import FORM, OwnCode, is_own_code, read_own_code

CLASSICS = ("lenet_300_100", "conv2", "conv4", "conv6", "resnet20", "vgg16_cifar")
ARGUMENTS = ("classes", "channels", "image_size")  # of a person's own function


def check_arch(arch: str) -> OwnCode | None:
    """Refuse a network that does not exist.

    Returns:
        What a person's own network is made by; None for one that has a name.

    Raises:
        LtrayError: `arch` is neither one of `CLASSICS`, nor a torchvision classification model,
            nor a function of a file.
    """
    if is_own_code(arch):
        return read_own_code("model.arch", arch, ARGUMENTS)
    known = (*CLASSICS, *torchvision_archs())
    if arch not in known:
        raise LtrayError(
            "model.arch",
            f"no network is called '{arch}'{did_you_mean(arch, known)}",
            f"choose {', '.join(CLASSICS)}, {FORM} or a torchvision classification model, of which "
            '`python -c "from ltray.models.names import *; print(*torchvision_archs())"` lists all',
        )
    return None


@cache
def torchvision_archs() -> tuple[str, ...]:
    """The names of the installed torchvision's classification models, sorted.

    Read from its source files, since importing it takes seconds. Detection, segmentation and the
    like lie in sub-packages there.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("ltray needs torchvision", name="torchvision")
    files = Path(spec.origin).with_name("models").glob("*.py")
    return tuple(sorted(name for file in files for name in _registered(file)))


def _registered(file: Path) -> list[str]:
    """The functions of one source file that `@register_model()` makes known by their names."""
    functions = (
        node
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    )
    return [
        function.name
        for function in functions
        if any(ast.unparse(mark) == "register_model()" for mark in function.decorator_list)
    ]
