"""Tensors as safetensors files, on a disk or in an object store, each with a header of JSON."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from ltray.files import write_whole
from ltray.headers import header_of

Tensors = dict[str, torch.Tensor]


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any] | None = None
) -> str:
    """Write tensors from any device whole; returns the file's SHA-256 in hex.

    Args:
        header: JSON values that `read_tensors` gives back.

    Raises:
        OSError: the disk is full or read-only.
    """
    here = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    # One key of metadata: safetensors writes several in no fixed order, and files should be equal.
    said = None if header is None else {"ltray": json.dumps(header, sort_keys=True)}
    content = save(here, metadata=said)
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors on the CPU, and the header; an empty one where there is none.

    Raises:
        FileNotFoundError: it is not there; `filename` says which, in a store too.
        safetensors.SafetensorError: it is no whole safetensors file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    return load(content), header_of(content)
