"""The student's decoder: the teacher in reverse, deep to shallow (RD4AD, Deng and Li, CVPR 2022, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from model.blocks import Bottleneck


class ReverseDecoder(nn.Module):
    """[B, width, H_3 / 2, W_3 / 2] -> three levels [B, C_l, H_l, W_l], shallow to deep.

    The heads are linear 1x1 convolutions, because standardised targets are signed; `rectified` adds the ReLU that the
    published decoder ends each level with.
    """

    def __init__(
        self, widths: Sequence[int], width: int, stage_widths: Sequence[int], blocks: int, rectified: bool
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for stage_width in reversed(stage_widths):
            inner = max(16, stage_width // 2)
            stages.append(
                nn.Sequential(
                    Bottleneck(width, stage_width, inner, scale=1),
                    *(Bottleneck(stage_width, stage_width, inner) for _ in range(blocks - 1)),
                )
            )
            width = stage_width
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(
            nn.Conv2d(stage_width, out, 1)
            for stage_width, out in zip(reversed(stage_widths), reversed(widths), strict=True)
        )
        self.rectified = rectified

    def forward(self, embedded_BCHW: torch.Tensor) -> list[torch.Tensor]:
        rebuilt = []
        x_BCHW = embedded_BCHW
        for stage, head in zip(self.stages, self.heads, strict=True):
            x_BCHW = stage(x_BCHW)
            level = head(x_BCHW)
            rebuilt.append(torch.relu(level) if self.rectified else level)
        return rebuilt[::-1]
