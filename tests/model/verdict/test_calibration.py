from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from model import Calibration, FitError, ModelBundle, calibrate
from model.verdict.calibration import ENOUGH, images_needed, rate_interval, threshold_for, threshold_interval
from model.verdict.scored import scored, verdict_of

Draw = Callable[[np.random.Generator, int], np.ndarray]
RateAbove = Callable[[float], float]


def good_scores(count: int, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0.5, 0.2, count))


def calibrated(scores: np.ndarray | list[float], rate: float = 0.01) -> Calibration:
    return calibrate(scores, np.ones((len(scores), 3, 3)), rate)


DISTRIBUTIONS: dict[str, tuple[Draw, RateAbove]] = {
    "normal": (lambda rng, n: rng.normal(size=n), lambda t: math.erfc(t / math.sqrt(2)) / 2),
    "exponential": (lambda rng, n: rng.exponential(size=n), lambda t: math.exp(-max(0, t))),
    "uniform": (lambda rng, n: rng.uniform(size=n), lambda t: min(1, max(0, 1 - t))),
    "heavy": (lambda rng, n: rng.uniform(size=n) ** -0.3, lambda t: max(t, 1) ** (-1 / 0.3)),
}


@pytest.mark.parametrize("rate", [0.005, 0.01, 0.05])
@pytest.mark.parametrize("count", [30, 100, 400])
def test_the_true_rate_lies_in_the_stated_interval(count: int, rate: float) -> None:
    """The true rate of each threshold is known exactly, for the distribution is."""
    low, high = rate_interval(count, rate)
    rng = np.random.default_rng(count)
    # A threshold beyond the largest score needs a fit of its tail, which takes milliseconds.
    rounds = 60 if rate * (count + 1) < 1 else 300
    for name, (draw, rate_above) in DISTRIBUTIONS.items():
        rates = np.array([rate_above(threshold_for(draw(rng, count), rate)) for _ in range(rounds)])
        assert np.mean((low <= rates) & (rates <= high)) >= 0.9, name
        if rate * (count + 1) >= 1:
            assert rates.mean() == pytest.approx(rate, rel=0.3), name


@pytest.mark.parametrize(("count", "rate"), [(54, 0.005), (100, 0.05), (400, 0.01)])
def test_the_true_threshold_lies_in_its_interval(count: int, rate: float) -> None:
    rng = np.random.default_rng(7)
    true = -math.log(rate)
    intervals = [threshold_interval(rng.exponential(size=count), rate) for _ in range(120)]
    assert np.mean([low <= true <= high for low, high in intervals]) >= 0.9


@pytest.mark.parametrize("count", [20, 54])
def test_beyond_the_largest_score_the_mean_rate_is_still_near_the_target(count: int) -> None:
    rng = np.random.default_rng(8)
    rates = [math.exp(-threshold_for(rng.exponential(size=count), 0.005)) for _ in range(150)]
    assert 0.003 < np.mean(rates) < 0.008


def test_among_the_scores_the_threshold_is_their_quantile() -> None:
    scores = good_scores(199)
    assert threshold_for(scores, 0.05) == pytest.approx(np.sort(scores)[-10])
    assert threshold_for(scores, 0.4) == pytest.approx(np.quantile(scores, 0.6, method="weibull"))


def test_beyond_the_scores_the_threshold_is_above_all_of_them_and_the_rate_may_be_nothing() -> None:
    limits = calibrated(good_scores(40), 0.005)
    assert limits.threshold > limits.heldout_maximum
    assert limits.false_reject_interval == (0.0, pytest.approx(1 - 0.025 ** (1 / 40)))


def test_a_lower_target_gives_a_higher_threshold() -> None:
    thresholds = [calibrated(good_scores(50), rate).threshold for rate in (0.1, 0.03, 0.021, 0.019, 0.01, 0.001)]
    assert thresholds == sorted(thresholds)


def test_the_limits_are_in_order_and_narrow_with_evidence() -> None:
    few, many = (calibrated(good_scores(count), 0.01) for count in (12, 400))
    for limits in (few, many):
        assert limits.pixel_threshold <= limits.review_low < limits.threshold < limits.review_high
        assert limits.threshold_interval is not None
        assert limits.threshold_interval[0] < limits.threshold < limits.threshold_interval[1]
        assert limits.review_low <= limits.threshold_interval[0]
    assert many.review_high / many.review_low < few.review_high / few.review_low
    assert many.false_reject_interval is not None
    assert few.false_reject_interval is not None
    assert many.false_reject_interval[1] < few.false_reject_interval[1]


@pytest.mark.parametrize("rate", [0.001, 0.005, 0.01, 0.05, 0.3])
def test_the_number_of_images_needed_is_the_least_that_is_enough(rate: float) -> None:
    needed = images_needed(rate)
    assert rate_interval(needed, rate)[1] <= ENOUGH * rate
    assert needed == 5 or rate_interval(needed - 1, rate)[1] > ENOUGH * rate


def test_too_few_images_are_said_and_are_no_error() -> None:
    few, enough = calibrated(good_scores(54), 0.005), calibrated(good_scores(400), 0.005)
    assert few.images_needed == images_needed(0.005)
    assert f"too few to promise 0.5%: {few.images_needed} held-out good images are needed" in few.describe()
    assert "0.5% aimed at, 0% to 6.6% at 95% confidence" in few.describe()
    assert "too few" not in enough.describe()


def test_a_version_from_before_the_intervals_still_opens(bundle: ModelBundle) -> None:
    manifest = json.loads(bundle.manifest_json())
    for name in ("threshold_interval", "false_reject_interval", "images_needed"):
        del manifest["calibration"][name]
    calibration = ModelBundle.open(json.dumps(manifest).encode(), bundle.weights).manifest.calibration
    assert calibration.false_reject_interval is None
    assert "before intervals were stated" in calibration.describe()


def test_the_intervals_survive_storage(bundle: ModelBundle) -> None:
    stored = ModelBundle.open(bundle.manifest_json(), bundle.weights).manifest.calibration
    assert stored == bundle.manifest.calibration
    assert stored.false_reject_interval == rate_interval(stored.heldout_images, stored.target_false_reject_rate)


def test_an_interval_that_ends_below_its_beginning_is_refused() -> None:
    values = calibrated(good_scores(30)).model_dump()
    with pytest.raises(ValueError, match="ends below"):
        Calibration.model_validate({**values, "false_reject_interval": (0.2, 0.1)})


def test_calibration_is_deterministic_and_the_order_of_images_does_not_matter() -> None:
    scores = good_scores(30)
    assert calibrated(scores) == calibrated(scores) == calibrated(scores[::-1].copy())


def test_equal_scores_still_give_limits() -> None:
    limits = calibrate(np.full(10, 2.0), np.full((10, 4, 4), 2.0), 0.01)
    assert limits.threshold == pytest.approx(2.0)
    assert limits.review_low < 2.0 < limits.review_high


def test_masks_on_good_images_stay_empty() -> None:
    """The map of no more than about the target's share of good images reaches the pixel threshold at all."""
    rng = np.random.default_rng(5)
    maps = rng.gamma(2.0, 1.0, (500, 16, 16))
    calibration = calibrate(maps[:100].max(axis=(1, 2)), maps[:100], 0.05)
    assert calibration.pixel_threshold <= calibration.review_low
    assert np.mean(maps[100:].max(axis=(1, 2)) >= calibration.pixel_threshold) < 0.15


def test_calm_maps_with_one_wild_pixel_lower_the_pixel_threshold_not_the_threshold() -> None:
    maps = np.ones((50, 64, 64)) + np.random.default_rng(6).uniform(0, 0.1, (50, 64, 64))
    maps[:, 0, 0] = good_scores(50) + 5
    calibration = calibrate(maps.max(axis=(1, 2)), maps, 0.05)
    assert calibration.threshold > 6
    assert calibration.pixel_threshold < 1.2


def test_too_few_or_meaningless_scores_are_refused() -> None:
    with pytest.raises(FitError, match="collect more"):
        calibrated([1.0] * 4)
    with pytest.raises(FitError, match="diverged"):
        calibrated([1.0] * 7 + [float("nan")])
    with pytest.raises(ValueError, match="one map per score"):
        calibrate([1.0] * 7, np.ones((6, 3, 3)), 0.01)


def test_the_verdict_changes_at_the_band() -> None:
    limits = calibrated(good_scores(40))
    assert verdict_of(np.nextafter(limits.review_low, 0), limits) == "OK"
    assert verdict_of(limits.review_low, limits) == "NotDecidable"
    assert verdict_of(np.nextafter(limits.review_high, 0), limits) == "NotDecidable"
    assert verdict_of(limits.review_high, limits) == "NotOK"


def test_a_scored_image_is_normalised_by_the_threshold() -> None:
    limits = calibrated(good_scores(40))
    anomaly = np.zeros((8, 8), dtype=np.float32)
    anomaly[3, 4] = limits.threshold * 2
    result = scored(anomaly[None], limits, width=100, height=50)
    assert result.normalised_score == pytest.approx(2.0)
    assert result.verdict == "NotOK"
    assert result.review_low < 1 < result.review_high
