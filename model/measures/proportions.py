"""What a count says about the share behind it: exact limits, for small counts too.

All of it rests on the beta distribution: of n values from any continuous distribution, the share of the whole that
lies above the k-th largest is Beta(k, n + 1 - k) (Arnold, Balakrishnan and Nagaraja, *A first course in order
statistics*, section 2.2), and so are the Clopper-Pearson limits of a counted share.
"""

from __future__ import annotations

import math

CONFIDENCE = 0.95
"""Of every interval that linewatch states; the rest is halved between its two ends."""
LOWER, UPPER = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2

_LONGEST_FRACTION = 10_000
_TINY = 1e-300
_PRECISION = 1e-15


def share_interval(count: int, of: int) -> tuple[float, float] | None:
    """The 95% interval of a share of which `count` in `of` were seen; None where nothing was looked at.

    Clopper and Pearson, *The use of confidence or fiducial limits* (Biometrika 1934): it covers at least 95% of the
    time, whatever the share. Raises ValueError for a count outside of 0..of.
    """
    if not 0 <= count <= of:
        raise ValueError(f"a count of {count} in {of} is impossible")
    if of == 0:
        return None
    low = beta_quantile(LOWER, count, of - count + 1) if count else 0.0
    high = beta_quantile(UPPER, count + 1, of - count) if count < of else 1.0
    return low, high


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x in 0..1 with beta_cdf(x, a, b) = probability, by bisection to the last digits."""
    low, high = 0.0, 1.0
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if beta_cdf(middle, a, b) < probability else (low, middle)
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), a, b > 0 (DLMF 8.17, by its continued fraction 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1 - beta_cdf(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _continued_fraction(x, a, b))


def _continued_fraction(x: float, a: float, b: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)) of DLMF 8.17.22, evaluated from the front (modified Lentz)."""
    value = numerator = 1.0
    denominator = 0.0
    for term in range(1, _LONGEST_FRACTION):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / (1 + d * denominator or _TINY)
        numerator = 1 + d / numerator or _TINY
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < _PRECISION:
            return value
    raise ArithmeticError(f"the incomplete beta function of {x}, {a}, {b} does not converge")


def percent(share: float) -> str:
    """0.005 -> "0.5%", to three digits."""
    return f"{100 * share:.3g}%"


def percent_interval(interval: tuple[float, float]) -> str:
    """(0.0, 0.0661) -> "0% to 6.61%"."""
    return " to ".join(percent(end) for end in interval)
