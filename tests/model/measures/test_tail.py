"""The tail beyond the largest score: on average over samples, the rate asked for, whatever the distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.measures.tail import Tail, fit_tail

RATE = 0.005


def exponential(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.sort(rng.exponential(size=count))


def pareto(shape: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, count: np.sort((rng.uniform(size=count) ** -shape - 1) / shape)


def fitted(ordered: np.ndarray) -> Tail:
    tail = fit_tail(ordered)
    assert tail is not None
    return tail


def mean_shape(tail: Tail) -> float:
    return float((tail.weights * tail.shapes).sum())


def test_the_tail_begins_at_its_level_and_falls() -> None:
    tail = fitted(exponential(np.random.default_rng(0), 60))
    assert tail.share == pytest.approx(16 / 61)
    assert tail.exceedance(tail.level) == pytest.approx(tail.share)
    rates = [tail.exceedance(tail.level + far) for far in (0.0, 0.5, 1.0, 5.0, 50.0)]
    assert rates == sorted(rates, reverse=True)
    for rate in (0.1, 0.01, 1e-4):
        assert tail.exceedance(tail.exceeded_by(rate)) == pytest.approx(rate, rel=1e-6)


def test_scores_in_other_units_move_the_tail_with_them() -> None:
    ordered = exponential(np.random.default_rng(1), 40)
    one, other = fitted(ordered), fitted(3 * ordered + 7)
    assert other.exceeded_by(RATE) == pytest.approx(3 * one.exceeded_by(RATE) + 7, rel=1e-6)
    assert other.limit(RATE, 0.975) == pytest.approx(3 * one.limit(RATE, 0.975) + 7, rel=1e-6)
    assert mean_shape(other) == pytest.approx(mean_shape(one), abs=1e-9)


def test_a_heavier_tail_is_seen_and_a_small_sample_moves_its_shape_little() -> None:
    rng = np.random.default_rng(2)
    few = [np.mean([mean_shape(fitted(pareto(shape)(rng, 24))) for _ in range(30)]) for shape in (-0.4, 0.4)]
    many = [np.mean([mean_shape(fitted(pareto(shape)(rng, 400))) for _ in range(30)]) for shape in (-0.4, 0.4)]
    assert many[0] < few[0] < few[1] < many[1]
    assert many == pytest.approx([-0.4, 0.4], abs=0.25), "the prior still pulls"


@pytest.mark.parametrize(
    ("draw", "rate_above", "factor"),
    [
        (exponential, lambda score: np.exp(-score), 1.4),
        (pareto(0.2), lambda score: (1 + 0.2 * score) ** -5, 2.0),
        (pareto(-0.2), lambda score: max(0.0, 1 - 0.2 * score) ** 5, 3.0),
    ],
    ids=["exponential", "heavy", "bounded"],
)
def test_the_mean_rate_is_near_the_one_asked_for(
    draw: Callable[[np.random.Generator, int], np.ndarray], rate_above: Callable[[float], float], factor: float
) -> None:
    rng = np.random.default_rng(3)
    rates = [rate_above(fitted(draw(rng, 54)).exceeded_by(RATE)) for _ in range(150)]
    assert RATE / factor < np.mean(rates) < factor * RATE


def test_the_limit_lies_above_the_true_quantile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    covered = [fitted(exponential(rng, 54)).limit(RATE, 0.975) >= -np.log(RATE) for _ in range(150)]
    assert np.mean(covered) >= 0.95


def test_equal_scores_have_no_tail() -> None:
    assert fit_tail(np.full(12, 2.0)) is None
    assert fit_tail(np.array([1.0, 1.0])) is None


@pytest.mark.parametrize("ordered", [[1.0, 2.0], [1.0] * 20 + [1.001], [0.0, 1e-9, 1e9], [1.0] * 10 + [50.0]])
def test_odd_samples_still_give_a_finite_tail(ordered: list[float]) -> None:
    tail = fitted(np.array(ordered))
    assert ordered[-2] <= tail.exceeded_by(1e-4) < np.inf
    assert np.isfinite(tail.limit(1e-4, 0.975))
