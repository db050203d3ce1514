"""From what a product's maps say to one image score.

Each of the two statistics is judged by what held-out good images say of it: z = (log of its peak - mean) / deviation.
Joined by a soft maximum, either alone can reject an image, and two that are both uneasy add up. Brought back to
a positive score by their mean deviation, so that thresholds and tails are those of one statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

_TINY = 1e-12
_LEAST_DEVIATION = 1e-3
MOST_POWER = 16.0


class Evidence(BaseModel):
    """log_means, log_deviations: of the peaks of the fine and the deep map of held-out good images.

    map_peak: the median of the map's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    log_means: tuple[float, ...] = Field(min_length=1)
    log_deviations: tuple[float, ...] = Field(min_length=1)
    map_peak: float = Field(gt=0)

    @classmethod
    def learned(cls, peaks: np.ndarray) -> Self:
        """From peaks of held-out good images, [N, 1 + statistics]: of the map, then of the statistics."""
        peaks = np.maximum(np.asarray(peaks, dtype=np.float64), _TINY)
        logs = np.log(peaks[:, 1:])
        deviations = np.maximum(logs.std(axis=0, ddof=1 if len(logs) > 1 else 0), _LEAST_DEVIATION)
        return cls(
            log_means=tuple(logs.mean(axis=0).tolist()),
            log_deviations=tuple(deviations.tolist()),
            map_peak=float(np.median(peaks[:, 0])),
        )

    def score(self, peaks: Sequence[float]) -> float:
        """The image score of the statistics' peaks, above 0; about 1 for good images."""
        z = [
            (math.log(max(peak, _TINY)) - mean) / deviation
            for peak, mean, deviation in zip(peaks, self.log_means, self.log_deviations, strict=True)
        ]
        return math.exp(self.joined(z) * math.fsum(self.log_deviations) / len(self.log_deviations))

    def joined(self, z: Sequence[float]) -> float:
        """The soft maximum of the statistics' z."""
        top = max(z)
        return top + math.log(math.fsum(math.exp(one - top) for one in z) / len(z))

    def map_power(self, score: float, peak: float) -> float:
        """To which power the map is taken, so that its peak comes to the score while what good images show stays at 1.

        Scaled alone, the map of a strong defect would lift the rest of the image above the threshold with it. Where
        the map shows less than good images do, the score has other grounds, and the map says no more than where.
        """
        if score <= 1:
            return 1.0
        above = math.log(max(peak, _TINY) / self.map_peak)
        return float(np.clip(math.log(score) / above, 1, MOST_POWER)) if above > 0 else MOST_POWER
