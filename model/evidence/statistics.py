"""The three gaussians of a product, and the maps that they draw.

Whether an image is defective: fine joins the levels that see small things, deep those that see what belongs where; each
is blind where the other sees. Where it is: sharp has the shallowest levels at their own resolution, under the pooled
covariance alone, for a place's own one takes defects away where good parts vary (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from model.evidence.gaussian import PlaceGaussian
from model.images.frames import MAP_STRIDE
from model.teachers import TeacherSpec
from model.team import ALONE, Team

STRIDES = (16, 32, 8)
"""Pixels of a frame to a place, along each side: of the fine, the deep and the sharp one."""
DIRECTIONS = (24, 16, 0)
"""Of each place's own covariance. A CPU reads them from memory for every image, and that costs more than arithmetic."""

Batches = Callable[[], Iterable[Sequence[torch.Tensor]]]
"""Targets of all levels of good images, [B, C_l, H_l, W_l], batch by batch; asked for several times."""


class PlaceStatistics(nn.Module):
    """Targets of all levels -> maps [B, 3, S / 4, S / 4], fine, deep and sharp; about 1 for good images.

    tiled: images are tiles, whose places mean nothing.
    """

    def __init__(self, spec: TeacherSpec, size: int, *, tiled: bool) -> None:
        super().__init__()
        self.side = size // MAP_STRIDE
        self.levels = (spec.fine, spec.deep, spec.sharp)
        self.sides = tuple(size // stride for stride in STRIDES)
        self.gaussians = nn.ModuleList(
            PlaceGaussian(sum(spec.all_widths[level] for level in levels), None if tiled else side, directions)
            for levels, side, directions in zip(self.levels, self.sides, DIRECTIONS, strict=True)
        )

    def forward(self, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        maps = []
        for gaussian, levels, side in zip(self.gaussians, self.levels, self.sides, strict=True):
            distance_B1HW = gaussian(joined([targets[level] for level in levels], side))[:, None]
            maps.append(F.interpolate(distance_B1HW, size=(self.side,) * 2, mode="bilinear", align_corners=False))
        return torch.cat(maps, dim=1)

    def fit(self, batches: Batches, changes: Batches | None = None, team: Team = ALONE) -> None:
        """Learn from targets of good images. changes: how those of tolerated copies differ from their own."""
        for gaussian, levels, side in zip(self.gaussians, self.levels, self.sides, strict=True):
            assert isinstance(gaussian, PlaceGaussian)
            gaussian.fit(
                partial(_all_joined, batches, levels, side),
                partial(_all_joined, changes, levels, side) if changes else None,
                team,
            )


def _all_joined(batches: Batches, levels: Sequence[int], side: int) -> Iterator[torch.Tensor]:
    for targets in batches():
        yield joined([targets[level] for level in levels], side)


def joined(targets: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """[B, sum of C_l, side, side]: finer levels averaged, coarser ones interpolated; all count the same."""
    parts = []
    for x_BCHW in targets:
        even = x_BCHW / x_BCHW.shape[1] ** 0.5
        if even.shape[-1] > side:
            even = F.avg_pool2d(even, even.shape[-1] // side)
        elif even.shape[-1] < side:
            even = F.interpolate(even, size=(side, side), mode="bilinear", align_corners=False)
        parts.append(even)
    return torch.cat(parts, dim=1)
