from __future__ import annotations

import numpy as np
import pytest

from model import FitError, calibrate
from model.calibration import tail_quantile
from model.scored import scored, verdict_of


def good_scores(count: int, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0.5, 0.2, count))


@pytest.mark.parametrize("count", [20, 50, 200])
def test_the_false_reject_rate_is_near_its_target(count: int) -> None:
    fresh = good_scores(200_000, seed=10_000)
    rates = [float((fresh >= tail_quantile(good_scores(count, seed), 0.01)).mean()) for seed in range(60)]
    assert 0.001 < np.median(rates) < 0.03


def test_a_lower_target_gives_a_higher_threshold() -> None:
    thresholds = [calibrate(good_scores(50), np.ones(10), rate).threshold for rate in (0.1, 0.01, 0.001)]
    assert thresholds == sorted(thresholds)


def test_a_generous_target_is_the_plain_quantile() -> None:
    assert tail_quantile(good_scores(100), 0.4) == pytest.approx(np.quantile(good_scores(100), 0.6))


def test_the_band_lies_around_the_threshold_and_narrows_with_evidence() -> None:
    few, many = (calibrate(good_scores(count), np.ones(10), 0.01) for count in (12, 400))
    for limits in (few, many):
        assert limits.pixel_threshold <= limits.review_low < limits.threshold < limits.review_high
    assert many.review_high / many.review_low < few.review_high / few.review_low


def test_calibration_is_deterministic() -> None:
    assert calibrate(good_scores(30), np.ones(9), 0.01) == calibrate(good_scores(30), np.ones(9), 0.01)


def test_equal_scores_still_give_limits() -> None:
    limits = calibrate(np.full(10, 2.0), np.full((10, 4, 4), 2.0), 0.01)
    assert limits.threshold == pytest.approx(2.0)
    assert limits.review_low < 2.0 < limits.review_high


def test_too_few_or_meaningless_scores_are_refused() -> None:
    with pytest.raises(FitError, match="collect more"):
        calibrate([1.0] * 4, np.ones(4), 0.01)
    with pytest.raises(FitError, match="diverged"):
        calibrate([1.0] * 7 + [float("nan")], np.ones(4), 0.01)


def test_the_verdict_changes_at_the_band() -> None:
    limits = calibrate(good_scores(40), np.ones(10), 0.01)
    assert verdict_of(np.nextafter(limits.review_low, 0), limits) == "OK"
    assert verdict_of(limits.review_low, limits) == "NotDecidable"
    assert verdict_of(np.nextafter(limits.review_high, 0), limits) == "NotDecidable"
    assert verdict_of(limits.review_high, limits) == "NotOK"


def test_a_scored_image_is_normalised_by_the_threshold() -> None:
    limits = calibrate(good_scores(40), np.ones(10), 0.01)
    anomaly = np.zeros((8, 8), dtype=np.float32)
    anomaly[3, 4] = limits.threshold * 2
    result = scored(anomaly, limits, width=100, height=50)
    assert result.normalised_score == pytest.approx(2.0)
    assert result.verdict == "NotOK"
    assert result.review_low < 1 < result.review_high
