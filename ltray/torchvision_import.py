"""Importing torchvision, also where its compiled operators do not fit the installed torch."""

import importlib
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

from ltray.errors import LtrayError

# The operators that torchvision's Python code describes to torch.compile when it is imported,
# whether they exist or not.
DESCRIBED_ON_IMPORT = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def import_torchvision() -> ModuleType:
    """The torchvision package.

    Beside a CPU-only torch, a torchvision that was built for CUDA cannot load its operators, and
    `import torchvision` fails with "operator torchvision::nms does not exist". Classification
    models and transforms need no such operator, so those that are missing are declared, without
    an implementation, before the import. `torchvision.io` cannot decode images there.
    """
    _load_operators()
    missing = [name for name in DESCRIBED_ON_IMPORT if not hasattr(torch.ops.torchvision, name)]
    if missing:
        _declare(*missing)
    return importlib.import_module("torchvision")


def _load_operators() -> None:
    """Register the compiled operators if they fit this torch.

    Comes before any declaration: an operator that is declared already cannot be registered.
    torchvision loads the same file again, which does nothing.
    """
    spec = find_spec("torchvision")
    if spec is None:
        raise LtrayError("torchvision", "is not installed", "pip install torchvision")
    assert spec.origin is not None, "torchvision is a package of files"
    for library in Path(spec.origin).parent.glob("_C*"):
        with suppress(OSError):
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]


@cache
def _declare(*names: str) -> torch.library.Library:
    """Declare operators; cached, because they last only as long as the returned object."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in names:
        library.define(DESCRIBED_ON_IMPORT[name])  # type: ignore[no-untyped-call]
    return library
