"""The student's decoder: the teacher in reverse, deep to shallow (RD4AD, Deng and Li, CVPR 2022, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from model.blocks import Bottleneck


class ReverseDecoder(nn.Module):
    """[B, width, H_3 / 2, W_3 / 2] -> three levels [B, C_l, H_l, W_l], shallow to deep.

    lateral_widths: channels of the fused maps that join at the levels (model/network/fusion.py), none for a plain
    student. They join through 1x1 convolutions without a bias: a map of zeros joins nothing. These start at full
    strength (He et al., ICCV 2015, without the factor for a ReLU): from zero they would grow only where the embedding
    fails, and take over what it should have learned to rebuild.

    The heads are linear 1x1 convolutions, because standardised targets are signed; `rectified` adds the ReLU that the
    published decoder ends each level with.
    """

    def __init__(
        self,
        widths: Sequence[int],
        width: int,
        stage_widths: Sequence[int],
        blocks: int,
        rectified: bool,
        lateral_widths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        joins = zip(lateral_widths, stage_widths, strict=True) if lateral_widths else ()
        laterals = [nn.Conv2d(fused, stage, 1, bias=False) for fused, stage in joins]
        for lateral in laterals:
            nn.init.kaiming_normal_(lateral.weight, nonlinearity="linear")
        self.laterals = nn.ModuleList(laterals)
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

    def forward(
        self, embedded_BCHW: torch.Tensor, sides: Sequence[int], fused: Sequence[torch.Tensor] = ()
    ) -> list[torch.Tensor]:
        """sides: H_l = W_l, shallow to deep. fused: maps [B, C'_l, H_l, W_l]; none for a plain student."""
        rebuilt = []
        x_BCHW = embedded_BCHW
        for place, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True), start=1):
            x_BCHW = stage(x_BCHW)
            if x_BCHW.shape[-1] > sides[-place]:  # half of an odd side was rounded up
                x_BCHW = x_BCHW[..., : sides[-place], : sides[-place]]
            if fused:
                x_BCHW = x_BCHW + self.laterals[-place](fused[-place])
            level = head(x_BCHW)
            rebuilt.append(torch.relu(level) if self.rectified else level)
        return rebuilt[::-1]
