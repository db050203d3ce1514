"""What the student has to rebuild: the teacher's levels, made comparable.

"standardised": the vector at each position is brought to unit length, so that strong and weak responses count the
same, and each channel is then standardised by its mean and deviation over the good images, which removes the few
channels that would otherwise dominate every distance. Light does not drop out by either: a teacher has biases and
clips, so other light turns its vectors, too (model/images/tolerance.py bears that where it is asked to). "cosine": the
raw levels, as RD4AD has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from model.teachers import TeacherSpec
from model.team import ALONE, Team

_TINY = 1e-6


class Targets(nn.Module):
    """Teacher levels -> targets, both [B, C_l, H_l, W_l]. Its statistics are buffers and travel with the student.

    more: prepare the levels that statistics alone read, too; a version from before has none.
    """

    def __init__(self, spec: TeacherSpec, *, more: bool = False) -> None:
        super().__init__()
        self.standardised = spec.recipe == "standardised"
        self.levels = len(spec.widths)
        self._all = len(spec.all_widths) if more else self.levels
        if self.standardised:
            for level, width in enumerate(spec.all_widths[: self._all]):
                self.register_buffer(f"mean_{level}", torch.zeros(width))
                self.register_buffer(f"inverse_deviation_{level}", torch.ones(width))

    def learn(self, batches: Iterable[Sequence[torch.Tensor]], team: Team = ALONE) -> None:
        """Take the channel statistics from teacher levels of good images. Sums are kept in float64."""
        if not self.standardised:
            return
        moments = [_Moments() for _ in range(self._all)]
        for levels in batches:
            for moment, x_BCHW in zip(moments, levels[: self._all], strict=True):
                moment.add(_unit_length(x_BCHW.float()))
        for level, moment in enumerate(moments):
            mean, deviation = moment.mean_and_deviation(team)
            self.get_buffer(f"mean_{level}").copy_(mean)
            self.get_buffer(f"inverse_deviation_{level}").copy_(1 / deviation.clamp_min(_TINY))

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Of the levels that a student rebuilds."""
        return self._prepared(levels[: self.levels])

    def all(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Of all levels; those for statistics come last."""
        return self._prepared(levels[: self._all])

    def _prepared(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not self.standardised:
            return [x_BCHW.float() for x_BCHW in levels]
        return [self._standardise(level, x_BCHW.float()) for level, x_BCHW in enumerate(levels)]

    def _standardise(self, level: int, x_BCHW: torch.Tensor) -> torch.Tensor:
        mean_C11 = self.get_buffer(f"mean_{level}").reshape(-1, 1, 1)
        scale_C11 = self.get_buffer(f"inverse_deviation_{level}").reshape(-1, 1, 1)
        return (_unit_length(x_BCHW) - mean_C11) * scale_C11


def _unit_length(x_BCHW: torch.Tensor) -> torch.Tensor:
    return x_BCHW / x_BCHW.square().sum(dim=1, keepdim=True).sqrt().clamp_min(_TINY)


class _Moments:
    """Mean and deviation of each channel over everything added, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_C: torch.Tensor | float = 0.0
        self.squares_C: torch.Tensor | float = 0.0

    def add(self, x_BCHW: torch.Tensor) -> None:
        x = x_BCHW.double()
        self.count += x.numel() // x.shape[1]
        self.sum_C = self.sum_C + x.sum(dim=(0, 2, 3))
        self.squares_C = self.squares_C + x.square().sum(dim=(0, 2, 3))

    def mean_and_deviation(self, team: Team) -> tuple[torch.Tensor, torch.Tensor]:
        (count,) = team.total_of(self.count)
        mean_C = team.total(torch.as_tensor(self.sum_C)) / count
        squares_C = team.total(torch.as_tensor(self.squares_C)) / count
        return mean_C, (squares_C - mean_C.square()).clamp_min(0).sqrt()
