"""Two statistics, one score."""

from __future__ import annotations

import numpy as np
import pytest

from model.evidence.evidence import MOST_POWER, Evidence

GOOD = np.exp(np.random.default_rng(0).normal((1.0, 0.5, -1.0), (0.1, 0.1, 0.4), (400, 3)))
"""Peaks of the map, and of the two statistics."""


def test_a_usual_image_scores_about_one() -> None:
    evidence = Evidence.learned(GOOD)
    assert np.median([evidence.score(one[1:]) for one in GOOD]) == pytest.approx(1.0, abs=0.1)


def test_either_statistic_alone_raises_it_by_what_its_own_spread_makes_of_it() -> None:
    evidence = Evidence.learned(GOOD)
    usual = np.exp(evidence.log_means)
    raised = [evidence.score(usual * np.exp([5 * 0.1, 0])), evidence.score(usual * np.exp([0, 5 * 0.4]))]
    assert raised[0] == pytest.approx(raised[1], rel=0.1)
    assert min(raised) > 1.5
    assert evidence.score(usual * np.exp([5 * 0.1, 5 * 0.4])) > max(raised)


def test_equal_images_and_nothing_at_all_are_no_error() -> None:
    evidence = Evidence.learned(np.ones((6, 3)))
    assert evidence.score([1.0, 1.0]) == pytest.approx(1.0)
    assert 0 < evidence.score([0.0, 0.0]) < 1
    assert np.isfinite(evidence.score([1e6, 1e6]))


def test_the_map_of_a_strong_defect_lifts_nothing_else() -> None:
    evidence = Evidence.learned(GOOD)
    assert evidence.map_peak == pytest.approx(np.e, rel=0.05)
    for score, peak in ((200.0, 5 * np.e), (1.5, 1.2 * np.e), (3.0, 2 * np.e)):
        power = evidence.map_power(score, peak)
        assert power >= 1
        # What a good image's peak would be on this image's map, and the peak itself.
        assert score * (evidence.map_peak / peak) ** power == pytest.approx(1, rel=1e-6) or power == 1
    assert evidence.map_power(0.8, 9.0) == 1
    assert evidence.map_power(2.0, 0.5 * np.e) == MOST_POWER  # the map sees nothing; it says where alone
