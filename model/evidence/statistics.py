"""The two gaussians of a product, and the maps that they draw.

fine joins the levels that see small things, deep those that see what belongs where: each is blind where the other sees.
Of one gaussian over all levels, of one for each level and of pairs, these two missed least (docs/method.md).
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

STRIDES = (16, 32)
"""Pixels of a frame to a place, along each side: of the fine and of the deep one."""

Batches = Callable[[], Iterable[Sequence[torch.Tensor]]]
"""Targets of all levels of good images, [B, C_l, H_l, W_l], batch by batch; asked for several times."""


class PlaceStatistics(nn.Module):
    """Targets of all levels -> maps [B, 2, S / 4, S / 4], fine and deep; about 1 for good images.

    tiled: images are tiles, whose places mean nothing.
    """

    def __init__(self, spec: TeacherSpec, size: int, *, tiled: bool) -> None:
        super().__init__()
        self.side = size // MAP_STRIDE
        self.levels = (spec.fine, spec.deep)
        self.sides = tuple(size // stride for stride in STRIDES)
        self.fine, self.deep = (
            PlaceGaussian(sum(spec.all_widths[level] for level in levels), None if tiled else side)
            for levels, side in zip(self.levels, self.sides, strict=True)
        )

    def forward(self, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        maps = []
        for gaussian, levels, side in zip((self.fine, self.deep), self.levels, self.sides, strict=True):
            distance_B1HW = gaussian(joined([targets[level] for level in levels], side))[:, None]
            maps.append(F.interpolate(distance_B1HW, size=(self.side,) * 2, mode="bilinear", align_corners=False))
        return torch.cat(maps, dim=1)

    def fit(self, batches: Batches, changes: Batches | None = None) -> None:
        """Learn from targets of good images. changes: how those of tolerated copies differ from their own."""
        for gaussian, levels, side in zip((self.fine, self.deep), self.levels, self.sides, strict=True):
            gaussian.fit(
                partial(_all_joined, batches, levels, side),
                partial(_all_joined, changes, levels, side) if changes else None,
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
