"""Exact intervals of finite populations, against the distribution itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.measures.finite import at_most, number_interval
from model.measures.proportions import share_interval


@given(st.data())
def test_probabilities_are_those_of_scipy(data: st.DataObject) -> None:
    stats = pytest.importorskip("scipy.stats")
    parts = data.draw(st.integers(1, 3000))
    such, sample = data.draw(st.integers(0, parts)), data.draw(st.integers(0, parts))
    found = data.draw(st.integers(-1, sample))
    assert at_most(found, sample, such, parts) == pytest.approx(
        stats.hypergeom(parts, such, sample).cdf(found), rel=1e-7, abs=1e-12
    )


@pytest.mark.parametrize(("parts", "sample"), [(30, 12), (200, 10), (61, 60), (50, 1)])
def test_the_interval_covers_whatever_the_truth(parts: int, sample: int) -> None:
    for such in range(parts + 1):
        covered = sum(
            at_most(found, sample, such, parts) - at_most(found - 1, sample, such, parts)
            for found in range(max(0, sample - parts + such), min(sample, such) + 1)
            if (limits := number_interval(found, sample, parts))[0] <= such <= limits[1]
        )
        assert covered >= 0.95 - 1e-9, such


def test_all_looked_at_is_a_point_and_none_is_everything() -> None:
    assert number_interval(7, 100, 100) == (7, 7)
    assert number_interval(0, 0, 100) == (0, 100)
    assert number_interval(0, 0, 0) == (0, 0)
    with pytest.raises(ValueError, match="impossible"):
        number_interval(3, 2, 100)


def test_of_very_many_parts_it_is_that_of_clopper_and_pearson() -> None:
    parts = 10_000_000
    for found, sample in ((0, 300), (3, 500), (40, 80)):
        low, high = number_interval(found, sample, parts)
        limits = share_interval(found, sample)
        assert limits is not None
        assert (low / parts, high / parts) == pytest.approx(limits, abs=1e-4)
