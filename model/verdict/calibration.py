"""Where OK ends: a threshold from held-out good images alone, and how sure it is.

A factory has no defects to tune on, but it can say how many good parts it is ready to reject. The threshold is the
score that a new good image exceeds with that probability p. Of n held-out scores,

    p (n + 1) >= 1    it lies among them: the p (n + 1)-th largest, interpolated, is exceeded at a mean rate of p,
                      whatever the distribution. No tail fit comes nearer (tried in simulation), so none is made.
    p (n + 1) < 1     it lies beyond the largest, and a fitted tail says how far (model/measures/tail.py).

Two intervals are stated, both at 95%.

*The rate that the threshold gives.* Of all good images, a share Beta(k, n + 1 - k) scores above the k-th largest of n,
for any continuous distribution; fractional k too, very nearly (Hutson, *Calculating nonparametric confidence intervals
for quantiles using fractional order statistics*, Journal of Applied Statistics 1999). So the interval follows from p
and n alone. Beyond the largest the rate is at most what the largest itself would give, and at least nothing: a tail may
end right there. Here the fitted tail could promise more than the images show; it is not asked.

*The threshold* that would give exactly p: again between two order statistics. Where the upper one does not exist, for
p n below 3.7, the fitted tail's limit stands in. It holds as far as the tail is a generalised Pareto one; with
Student's t of 3 degrees of freedom it came out too low in up to one case of seven.

The threshold's interval is the review band (NotDecidable): where good images cannot tell, a person decides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from model.errors import FitError
from model.manifest import Calibration
from model.measures.proportions import LOWER, UPPER, beta_cdf, beta_quantile
from model.measures.tail import fit_tail

LEAST_HELD_OUT = 5
ENOUGH = 3.0
"""Images are enough for a target if the rate's interval ends at no more than this many times the target."""

# The band is never thinner than the noise between two fits of the same images. Upwards it is cut short, or it would
# swallow NotOK: with few images the upper limit is the fitted tail's, far out. On three products a band up to 1.25
# times the threshold rejected a third of the good images that the target allows, one up to 1.1 about as many.
_BAND_LOW_MOST = 0.97
_BAND_HIGH = (1.03, 1.10)
_PIXEL_QUANTILE = 0.999
_BISECTIONS = 50


def calibrate(
    scores: Sequence[float] | np.ndarray, maps: Sequence[np.ndarray] | np.ndarray, target_false_reject_rate: float
) -> Calibration:
    """Limits from the raw image scores of held-out good images, [N], and their anomaly maps, N of any shape.

    Too few images for the target are no error: the intervals are wide then, and images_needed says how many would do.
    Raises FitError for fewer than LEAST_HELD_OUT or for meaningless scores, ValueError if scores and maps don't match.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if len(maps) != ordered.size:
        raise ValueError(f"{ordered.size} scores and {len(maps)} anomaly maps: give one map per score")
    if ordered.size < LEAST_HELD_OUT:
        raise FitError(
            f"{ordered.size} good images are held out, at least {LEAST_HELD_OUT} are needed to place a threshold; "
            "collect more good images"
        )
    if not np.isfinite(ordered).all() or ordered[-1] <= 0:
        raise FitError("held-out good images score nan, infinite or zero; the fit diverged, lower the learning rate")
    target, count = target_false_reject_rate, int(ordered.size)
    threshold = threshold_for(ordered, target)
    low, high = threshold_interval(ordered, target)
    review_low = min(low, _BAND_LOW_MOST * threshold)
    return Calibration(
        threshold=threshold,
        review_low=review_low,
        review_high=float(np.clip(high, _BAND_HIGH[0] * threshold, _BAND_HIGH[1] * threshold)),
        pixel_threshold=min(_pixel_threshold(maps, target), review_low),
        target_false_reject_rate=target,
        threshold_interval=(low, high),
        false_reject_interval=rate_interval(count, target),
        images_needed=images_needed(target),
        heldout_images=count,
        heldout_median=float(np.median(ordered)),
        heldout_maximum=float(ordered[-1]),
    )


def threshold_for(scores: np.ndarray, rate: float) -> float:
    """The score that a new good image exceeds with probability `rate`, from the scores of good images, [N]."""
    ordered = np.sort(scores)
    rank = rate * (ordered.size + 1)
    if rank >= 1:
        return _ranked(ordered, rank)
    tail = fit_tail(ordered)
    return max(float(ordered[-1]), tail.exceeded_by(rate)) if tail else float(ordered[-1])


def threshold_interval(scores: np.ndarray, rate: float) -> tuple[float, float]:
    """Limits of the score that exactly `rate` of all good images exceed; the upper may be the fitted tail's."""
    ordered = np.sort(scores)
    low_rank, high_rank = _interval_ranks(ordered.size, rate)
    low = _ranked(ordered, low_rank)
    if high_rank is not None:
        return low, _ranked(ordered, high_rank)
    tail = fit_tail(ordered)
    return low, max(threshold_for(ordered, rate), tail.limit(rate, UPPER)) if tail else float(ordered[-1])


@functools.lru_cache
def rate_interval(images: int, rate: float) -> tuple[float, float]:
    """Limits of the true false-reject rate of a threshold that `images` good images placed for `rate`."""
    rank = max(1.0, min(rate * (images + 1), images))
    low = beta_quantile(LOWER, rank, images + 1 - rank) if rate * (images + 1) >= 1 else 0.0
    return low, beta_quantile(UPPER, rank, images + 1 - rank)


@functools.lru_cache
def images_needed(rate: float) -> int:
    """The least number of held-out good images that are enough for `rate` (see ENOUGH)."""
    few, many = LEAST_HELD_OUT - 1, LEAST_HELD_OUT
    while rate_interval(many, rate)[1] > ENOUGH * rate:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if rate_interval(middle, rate)[1] > ENOUGH * rate else (few, middle)
    return many


def _ranked(ordered: np.ndarray, rank: float) -> float:
    """The rank-th largest of ascending scores, rank 1 the largest; between ranks by straight lines."""
    return float(np.interp(rank, np.arange(1, ordered.size + 1), ordered[::-1]))


@functools.lru_cache
def _interval_ranks(images: int, rate: float) -> tuple[float, float | None]:
    """Ranks from the top whose scores bracket the true quantile; None where the upper lies beyond the largest."""

    def below(rank: float) -> float:
        """Probability that less than `rate` of all images score above the rank-th largest of these."""
        return beta_cdf(rate, rank, images + 1 - rank)

    low = _bisect(lambda rank: below(rank) - LOWER, 1.0, float(images))
    return low, _bisect(lambda rank: below(rank) - UPPER, 1.0, float(images)) if below(1.0) >= UPPER else None


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero; the end at which it comes nearest where it does not."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


def _pixel_threshold(maps: Sequence[np.ndarray] | np.ndarray, rate: float) -> float:
    """The map value that a thousandth of the map exceeds on no more than `rate` of good images."""
    return threshold_for(np.array([np.quantile(one, _PIXEL_QUANTILE) for one in maps], dtype=np.float64), rate)
