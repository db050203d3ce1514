"""Beyond the largest good score: the upper tail as a generalised Pareto distribution.

Peaks over a high level (Pickands 1975; Coles, *An introduction to statistical modeling of extreme values*, 2001,
chapter 4): excesses over the upper quartile have P(excess > y) = (1 + shape * y / scale) ** (-1 / shape). A dozen
values cannot tell the shape, and a maximum likelihood estimate from them is wild. So the shape has a prior, normal
around -0.1 with a deviation of 0.2, which spans what the upper quartiles of light-tailed and of moderately heavy laws
look like (Coles and Dixon, *Likelihood-based inference for extreme value models*, Extremes 1999, penalise it for the
same reason), the scale has none, and both are averaged over, by a sum over a grid.

Averaging is what keeps the rate honest: take the score that a new good image exceeds with probability p, all that is
unknown of shape and scale included. Over ten distributions, from the uniform to Student's t with 3 degrees of freedom,
54 scores and p = 0.5%, it is exceeded at a mean rate of 0.5%; the middle of what is believed would be at 0.8%. On a
single distribution the mean rate is between nothing (a tail that ends) and 1%. Prior, level and averaging were chosen
by that simulation, at 12 to 500 images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TAIL_FRACTION = 0.25
_TAIL_LEAST, _TAIL_MOST = 8, 50
_PRIOR_MEAN, _PRIOR_DEVIATION = -0.1, 0.2
# An even number of shapes around the prior's mean: none of them is zero, where the formula needs its limit.
_SHAPES_K = np.linspace(_PRIOR_MEAN - 0.59, _PRIOR_MEAN + 0.79, 28)
_LOG_SCALES_S = np.linspace(-1.8, 1.8, 46)
_HALVINGS = 60


@dataclass(frozen=True, eq=False)
class Tail:
    """What is believed of the scores above `level`.

    share: of all good images above the level. shapes, scales, weights: [K, S], weights sum to 1. A shape below 0 is a
    tail that ends somewhere, near 0 an exponential one, above 0 a heavy one.
    """

    level: float
    share: float
    shapes: np.ndarray
    scales: np.ndarray
    weights: np.ndarray

    def exceedance(self, score: float) -> float:
        """Probability that a new good image scores above `score`, a score at or above the level."""
        reach = np.maximum(1 + self.shapes * (score - self.level) / self.scales, 0)
        with np.errstate(divide="ignore"):  # beyond the end of a tail that ends: 0 to a positive power
            return float(self.share * (self.weights * reach ** (-1 / self.shapes)).sum())

    def exceeded_by(self, rate: float) -> float:
        """The score that a new good image exceeds with probability `rate`, less than `share`."""
        step = float(self.scales.mean())
        while self.exceedance(self.level + step) > rate:
            step *= 2
        low, high = self.level, self.level + step
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.exceedance(middle) > rate else (low, middle)
        return high

    def limit(self, rate: float, probability: float) -> float:
        """The score below which the true `rate` quantile lies with this probability (a credible limit)."""
        quantiles = self.level + self.scales / self.shapes * ((self.share / rate) ** self.shapes - 1)
        order = np.argsort(quantiles, axis=None)
        place = np.searchsorted(np.cumsum(self.weights.ravel()[order]), probability)
        return float(quantiles.ravel()[order][min(int(place), order.size - 1)])


def fit_tail(ordered: np.ndarray) -> Tail | None:
    """The tail of ascending scores, at least two. None where the largest of them are all equal."""
    count = ordered.size
    above = min(max(round(count * _TAIL_FRACTION), _TAIL_LEAST), _TAIL_MOST, count - 1)
    level = float(ordered[-above - 1])
    excesses = ordered[-above:] - level
    mean = float(excesses.mean())
    if mean <= 0:
        return None
    shapes_KS, scales_KS = np.meshgrid(_SHAPES_K, mean * np.exp(_LOG_SCALES_S), indexing="ij")
    reach_KSN = 1 + shapes_KS[..., None] * excesses / scales_KS[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs_KSN = np.where(reach_KSN > 0, np.log(reach_KSN), np.inf)
        likelihood_KS = -above * np.log(scales_KS) - (1 + 1 / shapes_KS) * logs_KSN.sum(axis=-1)
    # An excess beyond the end of a tail has the likelihood 0, whatever sign 1 + 1 / shape has.
    impossible = ~(reach_KSN > 0).all(axis=-1)
    posterior_KS = np.where(impossible, -np.inf, likelihood_KS)
    posterior_KS = posterior_KS - 0.5 * ((shapes_KS - _PRIOR_MEAN) / _PRIOR_DEVIATION) ** 2
    weights_KS = np.exp(posterior_KS - posterior_KS.max())
    # On average over samples, (above + 1) / (count + 1) of all images lie above it (model/measures/proportions.py).
    share = (above + 1) / (count + 1)
    return Tail(level, share, shapes_KS, scales_KS, weights_KS / weights_KS.sum())
