"""What a detector has to beat: methods that train nothing, on the very features that the student learns from.

All see the teacher's levels as the student's targets (unit length, standardised), and their distances become maps and
scores by the same resolution and smoothing, so what differs is the method alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from model.evidence.gaussian import PlaceGaussian
from model.evidence.statistics import DIRECTIONS, STRIDES, joined
from model.images.frames import MAP_STRIDE
from model.maps.anomaly_map import SMOOTHING_FRACTION
from model.maps.smoothing import smooth
from model.network.targets import Targets
from model.teachers import TeacherSpec

Baseline = Literal["knn", "mahalanobis", "positional_2", "positional_3", "fine", "deep"]
"""Patch nearest neighbours; one gaussian for all places; a gaussian at each place of level 2 or 3 alone (PaDiM), or of
the levels that the evidence's fine and deep one join (model/evidence/statistics.py)."""
Batches = Iterable[Sequence[torch.Tensor]]

_BANK = 15_000
_SHRINKAGE = 0.01


class PatchKNN:
    """Squared distance of each patch to the nearest good one (PatchCore: Roth et al., CVPR 2022, section 3).

    A patch is the target of levels 2 and 3 at level 2's resolution. The bank is a random choice of 15,000 patches of
    good images. Level 1 and PatchCore's 3x3 pooling were tried and left out, for they made it worse on these features.
    """

    def __init__(self, spec: TeacherSpec, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._side = size // spec.strides[1]
        self._targets = Targets(spec)

    def fit(self, good: Batches) -> None:
        """good: the teacher's levels of good images, batch by batch."""
        batches = list(good)
        self._targets.to(batches[0][0].device).learn(batches)
        patches = torch.cat([self._patches(levels).flatten(0, 2) for levels in batches])
        order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(self.seed))
        self._bank = patches[order[:_BANK]]

    def maps(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Levels [B, C_l, H_l, W_l] -> maps [B, S / 4, S / 4]."""
        patches_BHWC = self._patches(levels)
        nearest = torch.stack([torch.cdist(p.flatten(0, 1), self._bank).amin(dim=1) for p in patches_BHWC])
        return as_maps(nearest.square().reshape(-1, self._side, self._side), self.size)

    def _patches(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """[B, H, W, C]; each level counts the same, however many channels it has."""
        maps = []
        for target_BCHW in self._targets(levels)[1:]:
            even = target_BCHW / target_BCHW.shape[1] ** 0.5
            maps.append(F.interpolate(even, size=(self._side, self._side), mode="bilinear", align_corners=False))
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1)


class Mahalanobis:
    """The null model: how unlikely the deepest level's feature is under one gaussian over all good positions.

    Rippel, Mertens and Merhof (ICPR 2020) for whole images; here at each position of the deepest level.
    """

    def __init__(self, spec: TeacherSpec, size: int) -> None:
        self.size = size
        self._targets = Targets(spec)

    def fit(self, good: Batches) -> None:
        """good: the teacher's levels of good images, batch by batch."""
        batches = list(good)
        self._targets.to(batches[0][0].device).learn(batches)
        x_NC = torch.cat([self._deepest(levels).flatten(0, 2) for levels in batches]).double()
        self._mean_C = x_NC.mean(dim=0)
        covariance = torch.cov((x_NC - self._mean_C).T)
        ridge = _SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
        self._precision = torch.linalg.inv(covariance + ridge)

    def maps(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Levels [B, C_l, H_l, W_l] -> maps [B, S / 4, S / 4]."""
        off_BHWC = self._deepest(levels).double() - self._mean_C
        distance_BHW: torch.Tensor = ((off_BHWC @ self._precision) * off_BHWC).mean(dim=-1)
        return as_maps(distance_BHW.float(), self.size)

    def _deepest(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """[B, H_3, W_3, C_3]."""
        targets: list[torch.Tensor] = self._targets(levels)
        return targets[-1].permute(0, 2, 3, 1)


class Positional:
    """A gaussian at each place over some levels: PaDiM (Defard et al., ICPR 2021 workshops), half pooled."""

    def __init__(
        self, spec: TeacherSpec, size: int, levels: Sequence[int], stride: int, directions: int | None = None
    ) -> None:
        """directions: of each place's own covariance; none: all."""
        self.size, self._levels, self._side = size, levels, size // stride
        self._targets = Targets(spec, more=True)
        width = sum(spec.all_widths[level] for level in levels)
        self._gaussian = PlaceGaussian(width, self._side, width if directions is None else directions)

    def fit(self, good: Batches) -> None:
        """good: the teacher's levels of good images, batch by batch."""
        batches = list(good)
        self._targets.to(batches[0][0].device).learn(batches)
        self._gaussian.to(batches[0][0].device).fit(lambda: map(self._joined, batches))

    def maps(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Levels [B, C_l, H_l, W_l] -> maps [B, S / 4, S / 4]."""
        return as_maps(self._gaussian(self._joined(levels)), self.size)

    def _joined(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        targets = self._targets.all(levels)
        return joined([targets[level] for level in self._levels], self._side)


def baseline(name: Baseline, spec: TeacherSpec, size: int, seed: int) -> PatchKNN | Mahalanobis | Positional:
    """seed: decides which patches the bank keeps; the others draw nothing."""
    match name:
        case "knn":
            return PatchKNN(spec, size, seed)
        case "mahalanobis":
            return Mahalanobis(spec, size)
        case "positional_2" | "positional_3":
            level = 1 if name == "positional_2" else 2
            return Positional(spec, size, (level,), spec.strides[level])
        case "fine":
            return Positional(spec, size, spec.fine, STRIDES[0], DIRECTIONS[0])
        case "deep":
            return Positional(spec, size, spec.deep, STRIDES[1], DIRECTIONS[1])


def as_maps(distances_BHW: torch.Tensor, size: int) -> torch.Tensor:
    """Distances of any resolution -> smoothed maps [B, S / 4, S / 4]."""
    side = size // MAP_STRIDE
    upsampled = F.interpolate(distances_BHW[:, None], size=(side, side), mode="bilinear", align_corners=False)
    return smooth(upsampled, sigma=SMOOTHING_FRACTION * side)[:, 0]
