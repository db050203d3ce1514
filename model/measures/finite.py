"""How many of a finite number of parts are such, from a simple random sample of them without replacement.

The number in the sample is hypergeometric. Limits are those numbers that a two-sided test does not refuse: Buonaccorsi,
*A note on confidence intervals for proportions in finite populations* (The American Statistician 1987), whose limits
are Clopper and Pearson's where the parts are endlessly many, and a point where all were looked at.
"""

from __future__ import annotations

import math

from model.measures.proportions import CONFIDENCE

_NEGLIGIBLE = 1e-18


def number_interval(found: int, sample: int, parts: int, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """The interval of how many of `parts` are such, where `found` of `sample` were; 0 to all where none was looked at.

    It covers at least as often as `confidence` says. Raises ValueError for counts that are impossible.
    """
    if not 0 <= found <= sample <= parts:
        raise ValueError(f"{found} in a sample of {sample} of {parts} parts is impossible")
    least, most = found, parts - (sample - found)
    tail = (1 - confidence) / 2
    low, high = least, most
    while low < high:  # the least number under which so many are not too many
        middle = (low + high) // 2
        if 1 - at_most(found - 1, sample, middle, parts) > tail:
            high = middle
        else:
            low = middle + 1
    lower = low
    low, high = least, most
    while low < high:  # the largest under which so few are not too few
        middle = (low + high + 1) // 2
        if at_most(found, sample, middle, parts) > tail:
            low = middle
        else:
            high = middle - 1
    return lower, low


def at_most(found: int, sample: int, such: int, parts: int) -> float:
    """The probability of at most `found` in a sample, where `such` of all parts are such."""
    lowest, highest = max(0, sample - (parts - such)), min(sample, such)
    if found >= highest:
        return 1.0
    if found < lowest:
        return 0.0
    if found > sample * such / parts:  # the shorter tail, or little would be left of it
        return 1 - _at_least(found + 1, sample, such, parts)
    term = _probability(found, sample, such, parts)
    total, k = term, found
    while k > lowest and term > _NEGLIGIBLE * total:
        term *= k * (parts - such - sample + k) / ((such - k + 1) * (sample - k + 1))
        total, k = total + term, k - 1
    return min(1.0, total)


def _at_least(found: int, sample: int, such: int, parts: int) -> float:
    highest = min(sample, such)
    term = _probability(found, sample, such, parts)
    total, k = term, found
    while k < highest and term > _NEGLIGIBLE * total:
        term *= (such - k) * (sample - k) / ((k + 1) * (parts - such - sample + k + 1))
        total, k = total + term, k + 1
    return min(1.0, total)


def _probability(k: int, sample: int, such: int, parts: int) -> float:
    return math.exp(_log_choose(such, k) + _log_choose(parts - such, sample - k) - _log_choose(parts, sample))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
