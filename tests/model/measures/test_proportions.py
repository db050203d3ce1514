"""Limits of a share, against SciPy where it is there (with scikit-learn) and against what is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.measures.proportions import beta_cdf, beta_quantile, percent, percent_interval, share_interval


def test_the_beta_distribution_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the developers' scikit-learn")
    rng = np.random.default_rng(0)
    for a, b in 10 ** rng.uniform(-1, 3.5, (300, 2)):
        x = rng.beta(a, b)
        assert beta_cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-10)
    for a, b in ((0.3, 54), (1, 20), (2.5, 398.5), (40, 2)):
        for probability in (0.025, 0.5, 0.975):
            assert beta_quantile(probability, a, b) == pytest.approx(stats.beta.ppf(probability, a, b), rel=1e-9)


@pytest.mark.parametrize("of", [1, 2, 5, 20, 150, 5000])
def test_the_interval_of_a_share_is_the_exact_one(of: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the developers' scikit-learn")
    for count in sorted({0, 1, of // 10, of // 2, of - 1, of}):
        exact = stats.binomtest(count, of).proportion_ci(confidence_level=0.95, method="exact")
        assert share_interval(count, of) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize("of", [4, 50, 1000])
def test_none_seen_has_the_closed_form(of: int) -> None:
    low, high = share_interval(0, of) or (math.nan, math.nan)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / of), rel=1e-12)
    assert share_interval(of, of) == (pytest.approx(1 - high, rel=1e-9), 1.0)


def test_the_interval_covers_the_share_at_least_as_often_as_it_says() -> None:
    for share in (0.01, 0.1, 0.5):
        counts = np.random.default_rng(1).binomial(40, share, 4000)
        limits = {count: share_interval(count, 40) or (1, 0) for count in np.unique(counts).tolist()}
        assert np.mean([limits[c][0] <= share <= limits[c][1] for c in counts.tolist()]) >= 0.945


def test_nothing_looked_at_says_nothing_and_impossible_counts_are_refused() -> None:
    assert share_interval(0, 0) is None
    for count, of in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="impossible"):
            share_interval(count, of)


def test_the_beta_distribution_ends_at_0_and_1() -> None:
    assert [beta_cdf(x, 2, 3) for x in (-0.1, 0.0, 1.0, 1.1)] == [0, 0, 1, 1]


def test_shares_are_written_as_percentages() -> None:
    assert [percent(share) for share in (0, 0.005, 0.0661, 0.16843, 1)] == ["0%", "0.5%", "6.61%", "16.8%", "100%"]
    assert percent_interval((0.0, 0.0661)) == "0% to 6.61%"
