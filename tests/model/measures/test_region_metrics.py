"""AUPRO and AUPIMO against plain, slow readings of their definitions, and at the edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from model import aupimo, aupro


def slow_aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """Threshold by threshold, region by region."""
    regions = []
    for index, mask in enumerate(masks):
        labelled, count = label(mask, structure=np.ones((3, 3)))
        regions += [(index, labelled == number) for number in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for anomaly in maps for v in anomaly.ravel()}, reverse=True):
        overlap = np.mean([(maps[index][region] >= threshold).mean() for index, region in regions])
        good = np.concatenate([anomaly[~mask] for anomaly, mask in zip(maps, masks, strict=True)])
        points.append((float((good >= threshold).mean()), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1, x1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0), limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def slow_aupimo(maps: list[np.ndarray], masks: list[np.ndarray], low: float, high: float) -> float:
    """The mean overlap at 20,000 FPRs evenly spread over the logarithm, each with its threshold found by trying all."""
    good = [anomaly for anomaly, mask in zip(maps, masks, strict=True) if not mask.any()]
    thresholds = np.array([*sorted({float(v) for anomaly in maps for v in anomaly.ravel()}), np.inf])
    fprs = np.array([np.mean([(anomaly >= t).mean() for anomaly in good]) for t in thresholds])
    overlaps = {
        i: np.array([(maps[i][masks[i]] >= t).mean() for t in thresholds]) for i, m in enumerate(masks) if m.any()
    }
    steps = (np.arange(20_000) + 0.5) / 20_000
    total = []
    for overlap in overlaps.values():
        at = [int(np.flatnonzero(fprs <= rate * (1 + 1e-12))[0]) for rate in low * (high / low) ** steps]
        total.append(overlap[at].mean())
    return float(np.mean(total))


def drawn(seed: int, images: int = 5, side: int = 12, levels: int = 40) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps with many ties; the first two images are good."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros((side, side), bool) for _ in range(images)]
    for mask in masks[2:]:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, side - 3, 2)
            mask[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = True
    maps = [np.round(rng.random((side, side)) * levels + 12 * mask).astype(np.float32) for mask in masks]
    return maps, masks


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([3, 40, 4000]))
def test_aupro_equals_the_slow_reading(seed: int, limit: float, levels: int) -> None:
    maps, masks = drawn(seed, levels=levels)
    assert aupro(maps, masks, limit) == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-9)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_aupimo_equals_the_slow_reading(seed: int) -> None:
    maps, masks = drawn(seed, side=20, levels=60)
    # 800 pixels of good images cannot show an FPR of 1e-5; the definition is the same at any limits.
    expected = slow_aupimo(maps, masks, 0.01, 0.2)
    assert aupimo(maps, masks, limits=(0.01, 0.2)) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_a_perfect_map_has_one_and_a_constant_one_half_the_limit(limit: float) -> None:
    _, masks = drawn(0)
    assert aupro([mask.astype(float) for mask in masks], masks, limit) == pytest.approx(1.0)
    assert aupro([np.ones(mask.shape) for mask in masks], masks, limit) == pytest.approx(limit / 2)
    assert aupimo([mask.astype(float) for mask in masks], masks) == pytest.approx(1.0)
    assert aupimo([np.ones(mask.shape) for mask in masks], masks) == 0.0


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    mask[15, 15] = True
    found_large = np.where(mask, 1.0, 0.0)
    found_large[15, 15] = -1.0
    assert aupro([found_large], [mask], 0.3) == pytest.approx(0.5)


def test_corners_join_a_region() -> None:
    mask = np.eye(4, dtype=bool)
    anomaly = np.zeros((4, 4))
    anomaly[0, 0] = 1.0
    # One region of four pixels: a quarter of it is found before the first false positive, the rest with all others.
    assert aupro([anomaly], [mask], 0.3) == pytest.approx(0.25 + 0.75 * 0.3 / 2)


def test_what_cannot_be_told_is_nan() -> None:
    good, bad = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    anomaly = np.ones((4, 4))
    assert math.isnan(aupro([], []))
    assert math.isnan(aupro([anomaly], [good]))  # no defect
    assert math.isnan(aupro([anomaly], [bad]))  # nothing but defect
    assert math.isnan(aupimo([anomaly], [good]))
    assert math.isnan(aupimo([anomaly], [bad]))  # one image, no good one


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="one mask per map"):
        aupro([np.ones((2, 2))], [])
    with pytest.raises(ValueError, match="pair 0"):
        aupimo([np.ones((2, 2))], [np.ones((3, 3))])
    with pytest.raises(ValueError, match="nan or infinite"):
        aupro([np.full((2, 2), np.nan)], [np.ones((2, 2))])
