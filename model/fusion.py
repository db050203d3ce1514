"""Asymptotic knowledge fusion: geometry first, semantics after, with learnable weights for the levels.

A reading of "Asymptotic fusion knowledge distillation for industrial anomaly detection" (2026), which is known here by
its abstract: the order of fusion follows AFPN (Yang et al., SMC 2023), the weights follow ASFF (Liu et al., 2019).

    0. reduce      every level to a few channels
    1. geometry    levels 1 and 2 are fused into both, one residual block each
    2. semantics   level 3 joins: all three are fused into each, one residual block each
    3. expand      back to the teacher's widths

At each position the weights of the fused levels are a softmax, so a level that only repeats another can be turned down
exactly where it does. They start at 1/n: the last layer that makes them is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from model.blocks import ResidualBlock, conv_norm, conv_norm_relu

_WEIGHT_WIDTH = 8
_LEAST_REDUCED_WIDTH = 32


class AsymptoticFusion(nn.Module):
    """Three levels [B, C_l, H_l, W_l] -> three fused levels of the same shapes.

    widths and strides describe the teacher's levels, shallow to deep; strides double from level to level.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != 3 or len(strides) != 3:
            raise ValueError(f"asymptotic fusion joins three levels, got {len(widths)} widths, {len(strides)} strides")
        reduced = [max(_LEAST_REDUCED_WIDTH, width // 8) for width in widths]
        self.reduce = nn.ModuleList(conv_norm_relu(width, few) for width, few in zip(widths, reduced, strict=True))
        self.geometry = nn.ModuleList(LevelFusion(reduced[:2], strides[:2], target) for target in range(2))
        self.geometry_blocks = nn.ModuleList(ResidualBlock(reduced[target]) for target in range(2))
        self.semantics = nn.ModuleList(LevelFusion(reduced, strides, target) for target in range(3))
        self.semantics_blocks = nn.ModuleList(ResidualBlock(few) for few in reduced)
        self.expand = nn.ModuleList(conv_norm(few, width) for width, few in zip(widths, reduced, strict=True))

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        maps = [reduce(level) for reduce, level in zip(self.reduce, levels, strict=True)]
        shallow = [block(fuse(maps[:2])) for fuse, block in zip(self.geometry, self.geometry_blocks, strict=True)]
        joined = [*shallow, maps[2]]
        fused = [block(fuse(joined)) for fuse, block in zip(self.semantics, self.semantics_blocks, strict=True)]
        return [expand(level) for expand, level in zip(self.expand, fused, strict=True)]

    def mean_level_weights(self, levels: Sequence[torch.Tensor]) -> dict[str, list[float]]:
        """Mean weight of each source level in each fusion for these images, e.g. {"semantics.1": [.5, .3, .2]}."""
        means: dict[str, list[float]] = {}

        def listen(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
            def note(_module: nn.Module, _inputs: tuple[torch.Tensor, ...], logits_BNHW: torch.Tensor) -> None:
                means[name] = torch.softmax(logits_BNHW, dim=1).mean(dim=(0, 2, 3)).tolist()

            return note

        handles = [
            fusion.weigh.register_forward_hook(listen(f"{stage}.{target + 1}"))
            for stage, fusions in (("geometry", self.geometry), ("semantics", self.semantics))
            for target, fusion in enumerate(fusions)
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

    def __init__(self, widths: Sequence[int], strides: Sequence[int], target: int) -> None:
        super().__init__()
        self.resample = nn.ModuleList(
            _Resample(width, widths[target], stride, strides[target])
            for width, stride in zip(widths, strides, strict=True)
        )
        self.compress = nn.ModuleList(conv_norm_relu(widths[target], _WEIGHT_WIDTH) for _ in widths)
        self.weigh = nn.Conv2d(_WEIGHT_WIDTH * len(widths), len(widths), 1)
        nn.init.zeros_(self.weigh.weight)
        assert self.weigh.bias is not None
        nn.init.zeros_(self.weigh.bias)
        self.blend = conv_norm_relu(widths[target], widths[target], 3)

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        maps = [resample(level) for resample, level in zip(self.resample, levels, strict=True)]
        compressed = [compress(level) for compress, level in zip(self.compress, maps, strict=True)]
        weights_BNHW = torch.softmax(self.weigh(torch.cat(compressed, dim=1)), dim=1)
        weighted = [level * weights_BNHW[:, index : index + 1] for index, level in enumerate(maps)]
        fused: torch.Tensor = self.blend(torch.stack(weighted).sum(dim=0))
        return fused


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
