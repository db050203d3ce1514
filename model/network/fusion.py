"""Asymptotic knowledge fusion: geometry first, semantics after, with learnable weights for the levels.

A reading of "Asymptotic fusion knowledge distillation for industrial anomaly detection" (2026), which is known here by
its abstract: the order of fusion follows AFPN (Yang et al., SMC 2023), the weights follow ASFF (Liu et al., 2019).

    0. reduce      every level to a few channels
    1. geometry    levels 1 and 2 are fused into both, one residual block each
    2. semantics   level 3 joins: all three are fused into each of them, one residual block each

The fused maps enter the decoder at their own resolution, where a plain student has nothing but what came through the
embedding. That would let defects pass as well, were it not for two things: the student is taught to rebuild the good
part from a spoiled one (model/fitting/corruption.py), and in training it has to do without any fused map for half of
the images (`FusionShape.dropout`), so that it cannot come to rest on them.

At each position the weights of the fused levels are a softmax, so a level that only repeats another can be turned down
exactly where it does. They start at 1/n: the last layer that makes them is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from model.blocks import ResidualBlock, conv_norm_relu

LevelWeights = Literal["position", "scalar", "mean"]

_WEIGHT_WIDTH = 8
_LEAST_REDUCED_WIDTH = 32
_INTO = (0, 1, 2)


@dataclass(frozen=True)
class FusionShape:
    """What is fused when, and how levels are weighted; anything but the defaults is for ablation.

    first: the levels of the first stage, none for all three at once. weights: by position (ASFF), one learned number a
    level, or 1/n. residual: fused maps are added to the reduced levels. dropout: share of the images of a training step
    from which all fused maps are withheld; nothing is rescaled, since their absence is a case of its own, as in
    stochastic depth (Huang et al., ECCV 2016).
    """

    first: tuple[int, int] | None = (0, 1)
    weights: LevelWeights = "position"
    residual: bool = False
    dropout: float = 0.5


def reduced_widths(widths: Sequence[int]) -> list[int]:
    """Channels that the levels are fused with: an eighth, at least 32."""
    return [max(_LEAST_REDUCED_WIDTH, width // 8) for width in widths]


class AsymptoticFusion(nn.Module):
    """Three levels [B, C_l, H_l, W_l] -> fused maps of the same levels, [B, C'_l, H_l, W_l], C' = reduced_widths.

    widths and strides describe the teacher's levels, shallow to deep; strides double from level to level.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], shape: FusionShape = FusionShape()) -> None:
        super().__init__()
        if len(widths) != 3 or len(strides) != 3:
            raise ValueError(f"asymptotic fusion joins three levels, got {len(widths)} widths, {len(strides)} strides")
        few = reduced_widths(widths)
        self.first = shape.first
        self.residual = shape.residual
        self.dropout = shape.dropout
        self.reduce = nn.ModuleList(conv_norm_relu(width, n) for width, n in zip(widths, few, strict=True))
        pair = shape.first or ()
        self.geometry = nn.ModuleList(
            LevelFusion([few[i] for i in pair], [strides[i] for i in pair], place, shape.weights)
            for place in range(len(pair))
        )
        self.geometry_blocks = nn.ModuleList(ResidualBlock(few[i]) for i in pair)
        self.semantics = nn.ModuleList(LevelFusion(few, strides, level, shape.weights) for level in _INTO)
        self.semantics_blocks = nn.ModuleList(ResidualBlock(few[level]) for level in _INTO)

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        maps = [reduce(level) for reduce, level in zip(self.reduce, levels, strict=True)]
        pair = self.first or ()
        joined = list(maps)
        for level, fuse, block in zip(pair, self.geometry, self.geometry_blocks, strict=True):
            joined[level] = block(fuse([maps[i] for i in pair]))
        fused = [block(fuse(joined)) for fuse, block in zip(self.semantics, self.semantics_blocks, strict=True)]
        return [a + b for a, b in zip(maps, fused, strict=True)] if self.residual else fused

    def mean_level_weights(self, levels: Sequence[torch.Tensor]) -> dict[str, list[float]]:
        """Mean weight of each source level in each fusion for these images, e.g. {"semantics.2": [.5, .3, .2]}."""
        means: dict[str, list[float]] = {}

        def listen(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
            def note(_module: nn.Module, _inputs: tuple[torch.Tensor, ...], weights_BNHW: torch.Tensor) -> None:
                means[name] = weights_BNHW.mean(dim=(0, 2, 3)).tolist()

            return note

        stages = (("geometry", self.first or (), self.geometry), ("semantics", _INTO, self.semantics))
        handles = [
            fusion.weigh.register_forward_hook(listen(f"{stage}.{level + 1}"))
            for stage, into, fusions in stages
            for level, fusion in zip(into, fusions, strict=True)
            if isinstance(fusion, LevelFusion)
        ]
        try:
            self(levels)
        finally:
            for handle in handles:
                handle.remove()
        return means


class LevelFusion(nn.Module):
    """N levels -> one map at the target level's width and resolution, weighted by position."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], target: int, weights: LevelWeights) -> None:
        super().__init__()
        self.resample = nn.ModuleList(
            _Resample(width, widths[target], stride, strides[target])
            for width, stride in zip(widths, strides, strict=True)
        )
        by_position = weights == "position"
        self.weigh = (
            _PositionWeights(widths[target], len(widths))
            if by_position
            else _GlobalWeights(len(widths), learned=weights == "scalar")
        )
        self.blend = conv_norm_relu(widths[target], widths[target], 3)

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        maps = [resample(level) for resample, level in zip(self.resample, levels, strict=True)]
        weights_BNHW = self.weigh(maps)
        weighted = [level * weights_BNHW[:, index : index + 1] for index, level in enumerate(maps)]
        # Not stacked: five dimensions have no channels_last, and each map would be copied.
        blended: torch.Tensor = self.blend(sum(weighted[1:], start=weighted[0]))
        return blended


class _PositionWeights(nn.Module):
    """N maps [B, C, H, W] -> weights [B, N, H, W] that sum to 1 at each position (ASFF, section 3.2)."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.compress = nn.ModuleList(conv_norm_relu(width, _WEIGHT_WIDTH) for _ in range(levels))
        self.logits = nn.Conv2d(_WEIGHT_WIDTH * levels, levels, 1)
        nn.init.zeros_(self.logits.weight)
        assert self.logits.bias is not None
        nn.init.zeros_(self.logits.bias)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        compressed = [compress(level) for compress, level in zip(self.compress, maps, strict=True)]
        return torch.softmax(self.logits(torch.cat(compressed, dim=1)), dim=1)


class _GlobalWeights(nn.Module):
    """The same weights at all positions, [1, N, 1, 1]: 1/n, or learned."""

    def __init__(self, levels: int, learned: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(levels), requires_grad=learned)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.softmax(self.logits, dim=0).reshape(1, len(maps), 1, 1)


class _Resample(nn.Module):
    """One level at another's width and resolution: up by 1x1 and bilinear, down by a strided convolution."""

    def __init__(self, width_in: int, width_out: int, stride_in: int, stride_out: int) -> None:
        super().__init__()
        self.up = max(1, stride_in // stride_out)
        down = max(1, stride_out // stride_in)
        self.project: nn.Module = nn.Identity()
        if down > 1:
            # Kernel and stride are equal: every position is read once.
            self.project = nn.Sequential(
                nn.Conv2d(width_in, width_out, down, stride=down, bias=False), nn.BatchNorm2d(width_out), nn.ReLU()
            )
        elif self.up > 1 or width_in != width_out:
            self.project = conv_norm_relu(width_in, width_out)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.project(x_BCHW)
        if self.up == 1:
            return x_BCHW
        return F.interpolate(x_BCHW, scale_factor=float(self.up), mode="bilinear", align_corners=False)
