"""Rows of the ablation for the image score: what other evidence, or another join of it, would say of the same fit.

A row has the default's student, light, place and jitter. It joins the fine and the deep statistic by their largest z or
by the sum of them, takes the student's own map for a third, or has both statistics on the student's residual.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F

from model import Fit, Frame, ModelBundle, Scored
from model.evidence.evidence import Evidence
from model.evidence.gaussian import PlaceGaussian
from model.evidence.statistics import DIRECTIONS, STRIDES, joined
from model.images.frames import normalised
from model.network.student import Student
from model.teachers import load_teacher
from model.verdict.scored import calibrated, peaks, scored

EvidenceRow = Literal["largest_z", "sum_of_z", "with_student", "on_residual"]
EVIDENCE_ROWS: tuple[str, ...] = get_args(EvidenceRow)

_CHUNK = 16
_RESIDUAL_LEVELS = ((0, 1), (1, 2))
"""Of the student's levels, shallow to deep: those of the fine and of the deep statistic."""


class _Summed(Evidence):
    def joined(self, z: Sequence[float]) -> float:
        return math.fsum(z) / math.sqrt(len(z))


class _Largest(Evidence):
    def joined(self, z: Sequence[float]) -> float:
        return max(z)


_JOINS: dict[str, type[Evidence]] = {"largest_z": _Largest, "sum_of_z": _Summed}


class EvidenceOf:
    """The image score of a row. Raises FitError."""

    def __init__(self, row: EvidenceRow, fit: Fit, bundle: ModelBundle) -> None:
        """fit: what made the bundle, of whole images."""
        self._row = row
        self._device = fit.device
        self._student: Student = bundle.student().to(fit.device).eval()
        self._teacher = load_teacher(bundle.manifest.backbone.name, fit.device)
        self._gaussians = self._on_residual(fit.train) if row == "on_residual" else []
        held_out = list(self.maps(fit.held_out))
        self._evidence = _JOINS.get(row, Evidence).learned(peaks(held_out))
        target = bundle.manifest.calibration.target_false_reject_rate
        self._calibration, self.held_out_scores = calibrated(held_out, self._evidence, None, target)

    def judge(self, frames: Sequence[Frame]) -> list[Scored]:
        return [
            scored(maps_KHW, self._calibration, frame.width, frame.height, None, self._evidence)
            for maps_KHW, frame in zip(self.maps(frames), frames, strict=True)
        ]

    @torch.inference_mode()
    def maps(self, frames: Sequence[Frame]) -> Iterator[np.ndarray]:
        """Of each frame the map, then what is joined to its score, float32 [K, S / 4, S / 4]."""
        for levels in self._levels(frames):
            maps_BKHW = self._student.anomaly_maps(levels)
            if self._row == "with_student":
                alone = self._student.own_maps(levels)
                maps_BKHW = torch.cat([maps_BKHW, alone[:, None]], dim=1)
            if self._row == "on_residual":
                maps_BKHW = torch.cat([maps_BKHW[:, :1], self._of_residual(levels)], dim=1)
            yield from maps_BKHW.cpu().numpy()

    def _levels(self, frames: Sequence[Frame]) -> Iterator[list[torch.Tensor]]:
        spec = self._teacher.spec
        for start in range(0, len(frames), _CHUNK):
            yield self._teacher(normalised(frames[start : start + _CHUNK], spec.mean, spec.std, self._device))

    def _residual(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        targets = self._student.targets(levels)
        wanted = self._student.wanted(targets)
        return [there - rebuilt for there, rebuilt in zip(wanted, self._student(targets), strict=True)]

    @torch.inference_mode()
    def _on_residual(self, train: Sequence[Frame]) -> list[PlaceGaussian]:
        kept = [[level.cpu() for level in self._residual(levels)] for levels in self._levels(train)]
        gaussians = []
        for stride, directions, chosen in zip(STRIDES, DIRECTIONS, _RESIDUAL_LEVELS, strict=False):
            side = self._student.size // stride
            width = sum(self._teacher.spec.widths[level] for level in chosen)
            gaussian = PlaceGaussian(width, side, directions).to(self._device)
            gaussian.fit(_batches(kept, chosen, side, self._device))
            gaussians.append(gaussian)
        return gaussians

    def _of_residual(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        residual = self._residual(levels)
        side = self._student.size // 4
        found = []
        for gaussian, stride, chosen in zip(self._gaussians, STRIDES, _RESIDUAL_LEVELS, strict=False):
            distance_BHW = gaussian(joined([residual[level] for level in chosen], self._student.size // stride))
            found.append(F.interpolate(distance_BHW[:, None], size=(side, side), mode="bilinear", align_corners=False))
        return torch.cat(found, dim=1)


def _batches(
    kept: Sequence[Sequence[torch.Tensor]], chosen: Sequence[int], side: int, device: torch.device
) -> Callable[[], Iterator[torch.Tensor]]:
    return lambda: (joined([levels[level].to(device) for level in chosen], side) for levels in kept)
