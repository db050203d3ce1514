"""ResNets and a transformer with random weights: speed does not depend on them, and published files may be missing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from model.teachers import TEACHERS
from model.teachers.resnet import RESNET18_SHAPE, RESNET50_SHAPE, WIDE_RESNET50_SHAPE, ResNetShape
from model.teachers.vision_transformer import DINOV2_S, DINOV2_S_SHAPE, VisionTransformerShape
from model.teachers.weights import WEIGHTS_DIR_VARIABLE, WeightsSource

SHAPES = {"resnet18": RESNET18_SHAPE, "resnet50": RESNET50_SHAPE, "wide_resnet50_2": WIDE_RESNET50_SHAPE}
# Of a block's last BatchNorm: with 1, the values of an untrained network double from block to block.
_RESIDUAL_GAIN = 0.3


@contextmanager
def random_teacher(backbone: str, folder: Path, seed: int = 0) -> Iterator[Path | None]:
    """While it lasts, `load_teacher(backbone)` reads random weights from a safetensors file in the folder: its path.

    EfficientNet-Lite keeps its own weights, and the path is none.
    """
    if backbone == DINOV2_S.name:
        tensors = random_transformer_tensors(DINOV2_S_SHAPE, seed)
    elif backbone in SHAPES:
        tensors = random_tensors(SHAPES[backbone], seed)
    else:
        yield None
        return
    data = safetensors.torch.save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{backbone}-random-{digest[:8]}.safetensors"
    path.write_bytes(data)
    entry, configured = TEACHERS[backbone], os.environ.get(WEIGHTS_DIR_VARIABLE)
    TEACHERS[backbone] = replace(entry, weights=WeightsSource(path.name, digest))
    os.environ[WEIGHTS_DIR_VARIABLE] = str(folder)
    try:
        yield path
    finally:
        TEACHERS[backbone] = entry
        if configured is None:
            del os.environ[WEIGHTS_DIR_VARIABLE]
        else:
            os.environ[WEIGHTS_DIR_VARIABLE] = configured


def random_tensors(shape: ResNetShape, seed: int = 0) -> dict[str, torch.Tensor]:
    """Layers 1 to 3 under torchvision's names, He initialised (He et al., ICCV 2015)."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}

    def layer(conv: str, norm: str, out: int, width: int, kernel: int, gain: float = 1.0) -> None:
        scale = (2 / (width * kernel**2)) ** 0.5
        tensors[f"{conv}.weight"] = torch.randn(out, width, kernel, kernel, generator=generator) * scale
        for part, value in (("weight", gain), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{norm}.{part}"] = torch.full((out,), value)

    layer("conv1", "bn1", 64, 3, 7)
    width = 64
    for level, count in enumerate(shape.blocks):
        inner, out = shape.inner_width << level, (64 << level) * shape.expansion
        for index in range(count):
            name = f"layer{level + 1}.{index}"
            sizes = [(inner, width, 1), (inner, inner, 3), (out, inner, 1)] if shape.bottleneck else [
                (inner, width, 3), (out, inner, 3)
            ]  # fmt: skip
            for number, (wide, narrow, kernel) in enumerate(sizes, start=1):
                gain = _RESIDUAL_GAIN if number == len(sizes) else 1.0
                layer(f"{name}.conv{number}", f"{name}.bn{number}", wide, narrow, kernel, gain)
            if index == 0 and (level > 0 or width != out):
                layer(f"{name}.downsample.0", f"{name}.downsample.1", out, width, 1)
            width = out
    return tensors


def random_transformer_tensors(shape: VisionTransformerShape, seed: int = 0) -> dict[str, torch.Tensor]:
    """Under the published names; every part does something, norms and scales too."""
    generator = torch.Generator().manual_seed(seed)
    width, hidden = shape.width, 4 * shape.width

    def drawn(*sizes: int, deviation: float) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator) * deviation

    tensors = {
        "cls_token": drawn(1, 1, width, deviation=0.5),
        "pos_embed": drawn(1, 1 + shape.side**2, width, deviation=0.5),
        "patch_embed.proj.weight": drawn(width, 3, shape.patch, shape.patch, deviation=(3 * shape.patch**2) ** -0.5),
        "patch_embed.proj.bias": drawn(width, deviation=0.1),
    }

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = 1 + drawn(width, deviation=0.1)
        tensors[f"{name}.bias"] = drawn(width, deviation=0.1)

    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (hidden, width)}
    layers |= {"mlp.fc2": (width, hidden)}
    for index in range(shape.blocks):
        name = f"blocks.{index}"
        for number in (1, 2):
            norm(f"{name}.norm{number}")
            tensors[f"{name}.ls{number}.gamma"] = 0.5 + drawn(width, deviation=0.1)
        for layer, (out, into) in layers.items():
            tensors[f"{name}.{layer}.weight"] = drawn(out, into, deviation=into**-0.5)
            tensors[f"{name}.{layer}.bias"] = drawn(out, deviation=0.1)
    norm("norm")
    return tensors
