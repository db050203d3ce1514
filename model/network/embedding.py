"""One-class bottleneck embedding (RD4AD, Deng and Li, CVPR 2022, section 3.3).

All levels are brought to the deepest one's resolution, concatenated, and pressed through bottleneck blocks at half of
it. What does not belong to a good part should not fit through.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from model.blocks import Bottleneck, conv_norm_relu


class OneClassEmbedding(nn.Module):
    """Levels [B, C_l, H_l, W_l] -> [B, width, H_L / 2, W_L / 2].

    gather_widths: channels that a level has after its descent to the one of that place.
    """

    def __init__(
        self, widths: Sequence[int], gather_widths: Sequence[int], width: int, inner: int, blocks: int
    ) -> None:
        super().__init__()
        self.gather = nn.ModuleList(
            _descent([own, *gather_widths[level + 1 : len(widths)]]) for level, own in enumerate(widths)
        )
        gathered = gather_widths[-1] * (len(widths) - 1) + widths[-1]
        self.blocks = nn.Sequential(
            Bottleneck(gathered, width, inner, scale=-1),
            *(Bottleneck(width, width, inner) for _ in range(blocks - 1)),
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        gathered = [gather(level) for gather, level in zip(self.gather, levels, strict=True)]
        embedded: torch.Tensor = self.blocks(torch.cat(gathered, dim=1))
        return embedded


def _descent(widths: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions of stride 2 through the widths of the levels below."""
    return nn.Sequential(*(conv_norm_relu(a, b, 3, stride=2) for a, b in pairwise(widths)))
