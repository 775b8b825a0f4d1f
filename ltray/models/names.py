"""The names of the networks, without importing torch: a typo is reported within a second."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ltray.errors import LtrayError, did_you_mean

CLASSICS = ("lenet_300_100", "conv2", "conv4", "conv6", "resnet20", "vgg16_cifar")


def check_arch(arch: str) -> None:
    """Refuse the name of a network that does not exist.

    Raises:
        LtrayError: `arch` is neither one of `CLASSICS` nor a torchvision classification model.
    """
    known = (*CLASSICS, *torchvision_archs())
    if arch not in known:
        raise LtrayError(
            "model.arch",
            f"no network is called '{arch}'{did_you_mean(arch, known)}",
            f"choose {', '.join(CLASSICS)} or a torchvision classification model; list those with "
            '`python -c "from ltray.models.names import *; print(*torchvision_archs())"`',
        )


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
