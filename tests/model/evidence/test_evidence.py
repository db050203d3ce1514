"""Two statistics, one score."""

from __future__ import annotations

import numpy as np
import pytest

from model.evidence.evidence import Evidence

GOOD = np.exp(np.random.default_rng(0).normal((0.5, -1.0), (0.1, 0.4), (400, 2)))


def test_a_usual_image_scores_about_one() -> None:
    evidence = Evidence.learned(GOOD)
    assert np.median([evidence.score(one) for one in GOOD]) == pytest.approx(1.0, abs=0.1)


def test_either_statistic_alone_raises_it_by_what_its_own_spread_makes_of_it() -> None:
    evidence = Evidence.learned(GOOD)
    usual = np.exp(evidence.log_means)
    raised = [evidence.score(usual * np.exp([5 * 0.1, 0])), evidence.score(usual * np.exp([0, 5 * 0.4]))]
    assert raised[0] == pytest.approx(raised[1], rel=0.1)
    assert min(raised) > 1.5
    assert evidence.score(usual * np.exp([5 * 0.1, 5 * 0.4])) > max(raised)


def test_equal_images_and_nothing_at_all_are_no_error() -> None:
    evidence = Evidence.learned(np.ones((6, 2)))
    assert evidence.score([1.0, 1.0]) == pytest.approx(1.0)
    assert 0 < evidence.score([0.0, 0.0]) < 1
    assert np.isfinite(evidence.score([1e6, 1e6]))
