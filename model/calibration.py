"""Where OK ends: a threshold from held-out good images alone.

A factory has no defects to tune on, but it can say how many good parts it is ready to reject. The threshold is that
quantile of the good images' scores. With some dozens of held-out images the quantile lies beyond the largest of them,
so the upper tail is extrapolated: the excesses over a high level are taken as exponential (peaks over threshold, Coles
2001, chapter 4, with the shape fixed at 0: a shape cannot be estimated from ten values, and scores that are maxima of a
smoothed map have such a tail).

How uncertain the threshold is, the bootstrap says: the band between its 10th and 90th percentile is where the data
cannot tell, and images in it are given to a person (NotDecidable).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from model.errors import FitError
from model.manifest import Calibration

LEAST_HELD_OUT = 5
_TAIL_FRACTION = 0.25
_TAIL_LEAST, _TAIL_MOST = 8, 50
_BOOTSTRAP_ROUNDS = 1000
_BAND_QUANTILES = (0.10, 0.90)
# The band is never thinner than the noise between two fits, nor so wide that it swallows the verdict.
_BAND_LOW = (0.80, 0.97)
_BAND_HIGH = (1.03, 1.25)
_PIXEL_QUANTILE = 0.999
_PIXEL_MOST = 0.9


def calibrate(
    scores: Sequence[float] | np.ndarray,
    map_values: np.ndarray,
    target_false_reject_rate: float,
    seed: int = 0,
) -> Calibration:
    """Limits from the raw image scores of held-out good images and the values of their anomaly maps (any shape).

    Raises FitError for too few or for meaningless scores.
    """
    score = np.sort(np.asarray(scores, dtype=np.float64))
    if score.size < LEAST_HELD_OUT:
        raise FitError(
            f"{score.size} good images are held out, at least {LEAST_HELD_OUT} are needed to place a threshold; "
            "collect more good images"
        )
    if not np.isfinite(score).all() or score[-1] <= 0:
        raise FitError("held-out good images score nan, infinite or zero; the fit diverged, lower the learning rate")
    threshold = tail_quantile(score, target_false_reject_rate)
    low, high = _bootstrap_band(score, target_false_reject_rate, seed)
    review_low = float(np.clip(low, _BAND_LOW[0] * threshold, _BAND_LOW[1] * threshold))
    review_high = float(np.clip(high, _BAND_HIGH[0] * threshold, _BAND_HIGH[1] * threshold))
    pixel = float(np.quantile(map_values, _PIXEL_QUANTILE))
    return Calibration(
        threshold=threshold,
        review_low=review_low,
        review_high=review_high,
        pixel_threshold=min(pixel, _PIXEL_MOST * review_low),
        target_false_reject_rate=target_false_reject_rate,
        heldout_images=int(score.size),
        heldout_median=float(np.median(score)),
        heldout_maximum=float(score[-1]),
    )


def tail_quantile(scores: np.ndarray, exceedance: float) -> float:
    """The score that a fraction `exceedance` of good images lies above, by an exponential tail."""
    ordered = np.sort(scores)
    count = ordered.size
    tail = min(max(round(count * _TAIL_FRACTION), _TAIL_LEAST), _TAIL_MOST, count - 1)
    if exceedance >= tail / count:
        return float(np.quantile(ordered, 1 - exceedance))
    level = ordered[-tail - 1]
    mean_excess = float(np.mean(ordered[-tail:] - level))
    return float(level + mean_excess * math.log(tail / (count * exceedance)))


def _bootstrap_band(scores: np.ndarray, exceedance: float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    rounds = rng.choice(scores, size=(_BOOTSTRAP_ROUNDS, scores.size), replace=True)
    low, high = np.quantile([tail_quantile(resampled, exceedance) for resampled in rounds], _BAND_QUANTILES)
    return float(low), float(high)
