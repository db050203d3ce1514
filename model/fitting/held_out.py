"""What a fitted student makes of good images: the ground of calibration and of honest reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from model.errors import FitError
from model.maps.anomaly_map import anomaly_maps
from model.maps.spread import divisors, level_importance, place_shares
from model.network.losses import error_maps
from model.network.student import Student, with_statistics
from model.team import ALONE, Team

Batches = Iterable[Sequence[torch.Tensor]]
"""The teacher's levels of images, [B, C_l, H_l, W_l], batch by batch."""


@dataclass(frozen=True, eq=False)
class HeldOutFindings:
    """divisors: per level [H_l, W_l] (model/maps/spread.py); maps: raw, [N, K, S / 4, S / 4] (Student.anomaly_maps).

    explained_variance: per level, 1 = rebuilt perfectly, 0 = no better than the mean.
    level_importance: weights of the levels in the map. level_weights: see AsymptoticFusion.mean_level_weights.
    """

    divisors: list[torch.Tensor]
    explained_variance: tuple[float, ...]
    level_importance: tuple[float, ...]
    level_weights: dict[str, list[float]]
    maps: np.ndarray


@torch.inference_mode()
def examine(
    student: Student,
    train: Batches,
    held_out: Batches,
    *,
    tiled: bool = False,
    counted: Sequence[np.ndarray] | None = None,
    team: Team = ALONE,
) -> HeldOutFindings:
    """Run the student, in eval mode, over good images. Raises FitError if its errors are meaningless.

    Of a team each runs it over its own; maps are of these, and all else is of all.

    tiled: the images are tiles, whose places mean nothing: each counts the same. counted: of each held-out image or
    tile in turn, and from the beginning again, the cells that are not ignored, bool [S / 4, S / 4]; none: all count.
    """
    mean_errors = _mean_errors(student, train, team)
    counts = _Counts(counted, mean_errors)
    places = [torch.ones_like(error) for error in mean_errors] if tiled else place_shares(counts.evened(mean_errors))
    errors: list[list[torch.Tensor]] = []
    of_statistics: list[torch.Tensor] = []
    variances = [_ExplainedVariance() for _ in places]
    of_fusions: dict[str, list[list[float]]] = {}
    for levels in held_out:
        targets = student.targets(levels)
        if student.statistics is not None:
            of_statistics.append(student.statistics(student.targets.all(levels)))
        rebuilt = student(targets)
        wanted = student.wanted(targets)
        errors.append(error_maps(student.recipe, wanted, rebuilt))
        chosen = counts.of_next(levels[0].shape[0])
        for variance, target, level, positions in zip(variances, wanted, rebuilt, chosen, strict=True):
            variance.add(_chosen(target, positions), _chosen(level, positions))
        if student.fusion is not None:
            for name, means in student.fusion.mean_level_weights(targets).items():
                of_fusions.setdefault(name, []).append(means)
    per_level = [torch.cat(level) for level in zip(*errors, strict=True)]
    ratios = [error / place for error, place in zip(per_level, places, strict=True)]
    chosen_ratios = [_chosen(ratio[:, None], at) for ratio, at in zip(ratios, counts.so_far(), strict=True)]
    means = [_mean_of(team, float(ratio.mean()), ratio.numel()) for ratio in chosen_ratios]
    if not all(0 < mean < float("inf") for mean in means):
        raise FitError(f"the mean errors of the levels are {means}; the fit diverged or the images are blank")
    explained = tuple(variance.value(team) for variance in variances)
    importance = level_importance(student.recipe, len(explained))
    divided_by = divisors(means, places)
    maps_BHW = anomaly_maps(per_level, divided_by, torch.tensor(importance), student.size)
    return HeldOutFindings(
        divisors=divided_by,
        explained_variance=explained,
        level_importance=importance,
        level_weights={
            name: [round(float(w), 4) for w in np.mean(team.joined(rows), axis=0)] for name, rows in of_fusions.items()
        },
        maps=with_statistics(maps_BHW, torch.cat(of_statistics) if of_statistics else None).cpu().numpy(),
    )


def _mean_of(team: Team, mean: float, count: int) -> float:
    """The mean over all processes' numbers."""
    total, of = team.total_of(mean * count, count)
    return total / of


def _mean_errors(student: Student, batches: Batches, team: Team) -> list[torch.Tensor]:
    """Mean over images of each level's error, [H_l, W_l]."""
    sums: list[torch.Tensor] = []
    count = 0
    for levels in batches:
        batch = [error_BHW.sum(dim=0) for error_BHW in student.level_errors(levels)]
        sums = [total + error for total, error in zip(sums, batch, strict=True)] if sums else batch
        count += levels[0].shape[0]
    (of,) = team.total_of(count)
    return [team.total(total) / of for total in sums]


class _Counts:
    """Which positions of each level count: those with any cell that does. None per level where nothing is ignored."""

    def __init__(self, counted: Sequence[np.ndarray] | None, levels: Sequence[torch.Tensor]) -> None:
        """counted: see examine; levels: [H_l, W_l], for their sizes."""
        self._images = 0
        self._levels: list[torch.Tensor | None] = [None] * len(levels)
        if counted is not None:
            cells_N1HW = torch.from_numpy(np.stack(counted)).float()[:, None].to(levels[0].device)
            self._levels = [F.adaptive_max_pool2d(cells_N1HW, level.shape[-2:])[:, 0] > 0 for level in levels]

    def of_next(self, images: int) -> list[torch.Tensor | None]:
        """Of the next images in turn, bool [B, H_l, W_l] per level."""
        begin = self._images
        self._images += images
        return self._of(range(begin, self._images))

    def so_far(self) -> list[torch.Tensor | None]:
        """Of all images that there were, bool [N, H_l, W_l] per level."""
        return self._of(range(self._images))

    def evened(self, mean_errors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Whole images' mean errors, [H_l, W_l], with ignored positions as hard as the others are on average."""
        return [
            error if counts is None else torch.where(counts[0], error, error[counts[0]].mean())
            for error, counts in zip(mean_errors, self._levels, strict=True)
        ]

    def _of(self, images: range) -> list[torch.Tensor | None]:
        return [
            None if counts is None else counts[torch.tensor(images, device=counts.device) % counts.shape[0]]
            for counts in self._levels
        ]


def _chosen(x_BCHW: torch.Tensor, positions_BHW: torch.Tensor | None) -> torch.Tensor:
    """The positions that count, [1, C, N, 1]; all as they are for None."""
    return x_BCHW if positions_BHW is None else x_BCHW.permute(1, 0, 2, 3)[:, positions_BHW][None, :, :, None]


class _ExplainedVariance:
    """1 - residual / total over all positions, total about each channel's mean; sums in float64."""

    def __init__(self) -> None:
        self.residual = 0.0
        self.count = 0
        self.sum_C: torch.Tensor | float = 0.0
        self.square = 0.0

    def add(self, target_BCHW: torch.Tensor, rebuilt_BCHW: torch.Tensor) -> None:
        target = target_BCHW.double()
        self.residual += float((target - rebuilt_BCHW).square().sum())
        self.sum_C = self.sum_C + target.sum(dim=(0, 2, 3))
        self.square += float(target.square().sum())
        self.count += target.numel() // target.shape[1]

    def value(self, team: Team) -> float:
        residual, square, count = team.total_of(self.residual, self.square, self.count)
        total = square - float(team.total(torch.as_tensor(self.sum_C)).square().sum()) / max(1, count)
        return 1 - residual / total if total > 0 else 0.0
