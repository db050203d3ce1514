"""From what a product's maps say to one image score.

Each of the two statistics is judged by what held-out good images say of it: z = (log of its peak - mean) / deviation.
Joined by a soft maximum, either alone can reject an image, and two that are both uneasy add up. Brought back to
a positive score by their mean deviation, so that thresholds and tails are those of one statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

_TINY = 1e-12
_LEAST_DEVIATION = 1e-3


class Evidence(BaseModel):
    """log_means, log_deviations: of the peaks of the fine and the deep map of held-out good images."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    log_means: tuple[float, ...] = Field(min_length=1)
    log_deviations: tuple[float, ...] = Field(min_length=1)

    @staticmethod
    def learned(peaks: np.ndarray) -> Evidence:
        """From peaks of held-out good images, [N, statistics]."""
        logs = np.log(np.maximum(np.asarray(peaks, dtype=np.float64), _TINY))
        deviations = np.maximum(logs.std(axis=0, ddof=1 if len(logs) > 1 else 0), _LEAST_DEVIATION)
        return Evidence(log_means=tuple(logs.mean(axis=0).tolist()), log_deviations=tuple(deviations.tolist()))

    def score(self, peaks: Sequence[float]) -> float:
        """The image score, above 0; about 1 for good images."""
        z = [
            (math.log(max(peak, _TINY)) - mean) / deviation
            for peak, mean, deviation in zip(peaks, self.log_means, self.log_deviations, strict=True)
        ]
        top = max(z)
        soft = top + math.log(math.fsum(math.exp(one - top) for one in z) / len(z))
        return math.exp(soft * math.fsum(self.log_deviations) / len(self.log_deviations))
