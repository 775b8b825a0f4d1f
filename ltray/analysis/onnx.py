"""A network as an ONNX file, which other programs than PyTorch run."""

import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ltray.errors import LtrayError, StageFailed
from ltray.experiment import Data

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TRIED_WITH = 3  # images: neither the example's number nor one, which exporters like to fix
LARGEST_ERROR = 1e-3  # of the largest logit: two programs sum in different orders


def onnx_of(model: nn.Module, data: Data) -> bytes:
    """The ONNX file of a network in evaluation mode; tried out by ONNX Runtime before.

    Its input `images` is float32 [B, C, S, S], its output `logits` [B, classes].

    Args:
        data: of the experiment, its sizes filled in.

    Raises:
        LtrayError: onnx, onnxscript or onnxruntime is not installed.
        StageFailed: the file does not compute what the network does.
    """
    check_onnx()
    assert isinstance(data.channels, int), "resolve() fills channels"
    assert data.crop_size is not None, "resolve() fills crop_size"
    shape = TRIED_WITH, data.channels, data.crop_size, data.crop_size
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    model = model.cpu().to(memory_format=torch.contiguous_format)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters, about their own insides
        path = Path(folder) / "model.onnx"
        try:
            _written(path, model, images[:2])
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            mend = "export without --onnx; torch.onnx.export says which operation it cannot write"
            raise StageFailed("model.onnx", f"torch cannot write it: {said}", mend) from error
        content = _without_traces(path.read_bytes())
    _check(model, content, images)
    return content


def _written(path: Path, model: nn.Module, images: torch.Tensor) -> None:
    torch.onnx.export(
        model,
        (images,),
        str(path),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _without_traces(content: bytes) -> bytes:
    """The file without the lines of Python that torch notes for each node, with their paths."""
    import onnx

    model = onnx.load_from_string(content)
    for node in model.graph.node:
        node.ClearField("metadata_props")
    return bytes(model.SerializeToString())


def check_onnx() -> None:
    """Refuse to begin without what writes and runs ONNX files.

    Raises:
        LtrayError: it is not installed.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        mend = "pip install 'ltray[onnx]'"
        raise LtrayError("--onnx", f"needs {' and '.join(missing)}", mend)


def _check(model: nn.Module, content: bytes, images: torch.Tensor) -> None:
    import onnxruntime

    with torch.inference_mode():
        expected = model(images).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images.numpy()})
    error = float(np.abs(found - expected).max())
    if not error <= LARGEST_ERROR * float(np.abs(expected).max()):
        problem = f"computes other logits than the network: they differ by {error:.2g}"
        raise StageFailed("model.onnx", problem, "export without --onnx, and report this")
