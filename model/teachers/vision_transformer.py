"""DINOv2's ViT-S/14 (Oquab et al., *DINOv2: learning robust visual features without supervision*, TMLR 2024).

A vision transformer (Dosovitskiy et al., ICLR 2021) that learned without labels. All of its blocks see one resolution,
so the levels that a student rebuilds are made of three of them: the tokens of an early block, interpolated to twice as
many places, those of a middle one as they are, and those of the last, averaged over 2 x 2 (a pyramid of a plain
transformer, as Li et al., ECCV 2022, make it, without anything learned). Weights are the published file, without
registers.

A patch has 14 pixels and a place 16 of the frame's: images are scaled by 14 / 16 first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.teachers.teacher import TeacherSpec
from model.teachers.weights import LoadedWeights, WeightsSource, take

_PLACE = 16
_EPS = 1e-6
_TRAINED_OFFSET = 0.1
"""Added to the number of patches where positions are interpolated, as the published model does."""


@dataclass(frozen=True)
class VisionTransformerShape:
    """read: the blocks, counted from 1, whose tokens become levels, shallow to deep. side: patches along a side in
    training, one position each."""

    width: int
    heads: int
    blocks: int
    patch: int
    side: int
    read: tuple[int, int, int]


DINOV2_S_SHAPE = VisionTransformerShape(width=384, heads=6, blocks=12, patch=14, side=37, read=(4, 8, 12))
DINOV2_S = TeacherSpec("dinov2_vits14", widths=(384, 384, 384), strides=(8, 16, 32), recipe="standardised")
DINOV2_S_WEIGHTS = WeightsSource(
    "dinov2_vits14_pretrain.pth",
    "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
)


class VisionTransformer(nn.Module):
    """Images [B, 3, S, S], S a multiple of 32 -> three levels at strides 8, 16 and 32."""

    def __init__(self, spec: TeacherSpec, shape: VisionTransformerShape, weights: LoadedWeights) -> None:
        super().__init__()
        self.spec = spec
        self.shape = shape
        self.weights_sha256 = weights.sha256
        tensors, width = weights.tensors, shape.width
        self.embed = nn.Conv2d(3, width, shape.patch, stride=shape.patch)
        _fill(self.embed, tensors, "patch_embed.proj")
        self.register_buffer("token", take(tensors, "cls_token", (1, 1, width)))
        self.register_buffer("positions", take(tensors, "pos_embed", (1, 1 + shape.side**2, width)))
        self.blocks = nn.ModuleList(_Block(width, shape.heads) for _ in range(shape.blocks))
        for index, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            block.load(tensors, f"blocks.{index}")
        self.norm = nn.LayerNorm(width, eps=_EPS)
        _fill(self.norm, tensors, "norm")
        self.requires_grad_(False)
        self.eval()

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        side = int(images_BCHW.shape[-1]) // _PLACE  # a constant where the graph is traced
        pixels = (side * self.shape.patch,) * 2
        x_BCHW = F.interpolate(images_BCHW, size=pixels, mode="bilinear", align_corners=False)
        x_BNC = self.embed(x_BCHW).flatten(2).transpose(1, 2) + self._positions(side)
        token = self.get_buffer("token") + self.get_buffer("positions")[:, :1]
        x_BNC = torch.cat([token.expand(len(x_BNC), -1, -1), x_BNC], dim=1)
        read = []
        for count, block in enumerate(self.blocks, start=1):
            x_BNC = block(x_BNC)
            if count in self.shape.read:
                read.append(self.norm(x_BNC)[:, 1:].transpose(1, 2).unflatten(2, (side, side)))
        shallow, middle, deep = read
        shallow = F.interpolate(shallow, scale_factor=2.0, mode="bilinear", align_corners=False)
        return [shallow, middle, F.avg_pool2d(deep, 2)]

    def _positions(self, side: int) -> torch.Tensor:
        """[1, side * side, C]: what was learned for 37 x 37 patches, interpolated as the published model does."""
        trained = self.shape.side
        grid = self.get_buffer("positions")[:, 1:].unflatten(1, (trained, trained)).permute(0, 3, 1, 2)
        if side != trained:
            factor = (side + _TRAINED_OFFSET) / trained
            grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic", align_corners=False)
        positions: torch.Tensor = grid.flatten(2).transpose(1, 2)
        return positions


class _Block(nn.Module):
    """Attention, then two layers; each after a norm, scaled by channel, and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("scale1", torch.ones(width))
        self.register_buffer("scale2", torch.ones(width))

    def load(self, tensors: Mapping[str, torch.Tensor], name: str) -> None:
        parts = {"norm1": "norm1", "norm2": "norm2", "qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1"}
        for own, published in (parts | {"fc2": "mlp.fc2"}).items():
            _fill(self.get_submodule(own), tensors, f"{name}.{published}")
        for index in (1, 2):
            scale = self.get_buffer(f"scale{index}")
            scale.copy_(take(tensors, f"{name}.ls{index}.gamma", tuple(scale.shape)))

    def forward(self, x_BNC: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x_BNC)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen_BNC = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x_BNC = x_BNC + self.proj(seen_BNC) * self.get_buffer("scale1")
        found: torch.Tensor = self.fc2(F.gelu(self.fc1(self.norm2(x_BNC)))) * self.get_buffer("scale2")
        return x_BNC + found


def _fill(layer: nn.Module, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    for part, parameter in layer.named_parameters():
        with torch.no_grad():
            parameter.copy_(take(tensors, f"{name}.{part}", tuple(parameter.shape)))
