from __future__ import annotations

import time
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model import Scored, cut
from model.evidence.evidence import Evidence
from model.images.cells import centre_pixels
from model.maps.components import connected_runs
from model.maps.resampling import upsample
from model.verdict.masks import EXTENT_SHARE, MOST_REGIONS, NEAR, SUMMIT_REACH
from model.verdict.scored import Verdict, calibrated, scored


def judged(anomaly: np.ndarray, width: int, height: int, pixel_threshold: float = 0.5) -> Scored:
    """A scored image with the review band 0.9 .. 1.1."""
    score = float(anomaly.max())
    verdict: Verdict = "OK" if score < 0.9 else "NotOK" if score >= 1.1 else "NotDecidable"
    anomaly = anomaly.astype(np.float32)
    return Scored(score, score, 1.0, verdict, anomaly, width, height, 0.9, 1.1, pixel_threshold)


def flood(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected components, the slow and obvious way."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        queue, component = deque([left.pop()]), set()
        while queue:
            y, x = queue.popleft()
            component.add((y, x))
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    queue.append(near)
        found.append(component)
    return found


def near(anomaly: np.ndarray, y: int, x: int, reach: int) -> float:
    """The largest value within `reach` cells."""
    return float(anomaly[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].max())


maps = arrays(np.float32, st.tuples(st.integers(2, 9), st.integers(2, 9)), elements=st.floats(0, 2, width=16))


@settings(deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_components_equal_a_flood_fill(mask: np.ndarray) -> None:
    runs = connected_runs(mask)
    found: list[set[tuple[int, int]]] = [set() for _ in range(runs.count)]
    for row, start, stop, component in zip(runs.row, runs.start, runs.stop, runs.component, strict=True):
        found[component] |= {(int(row), x) for x in range(start, stop)}
    assert sorted(map(sorted, found)) == sorted(map(sorted, flood(mask)))


@settings(deadline=None, max_examples=150)
@given(maps, st.integers(1, 40), st.integers(1, 40), st.integers(0, 30))
def test_cut_equals_a_slow_reference(anomaly: np.ndarray, width: int, height: int, least: int) -> None:
    image = judged(anomaly, width, height)
    findings = cut(image, min_area_px=least)
    if image.verdict == "OK":
        assert not findings.mask.any()
        assert findings.regions == []
        return
    pixels = upsample(image.anomaly_map, height, width)
    reach = max(1, round(NEAR * max(anomaly.shape)))
    share = np.float32(EXTENT_SHARE)  # in the map's precision: a pixel may lie exactly on its level
    levels = np.array(
        [
            [max(0.5, share * np.float32(near(image.anomaly_map, y, x, reach))) for x in range(anomaly.shape[1])]
            for y in range(anomaly.shape[0])
        ],
        np.float32,
    )
    components = flood(pixels >= upsample(levels, height, width))
    rows, columns = centre_pixels(anomaly.shape[0], height), centre_pixels(anomaly.shape[1], width)
    summits = {
        (int(rows[y]), int(columns[x]))
        for y, x in np.ndindex(anomaly.shape)
        if anomaly[y, x] >= 0.9 and anomaly[y, x] >= near(image.anomaly_map, y, x, SUMMIT_REACH)
    }
    highest = max(float(pixels[at]) for component in components for at in component)
    kept = [
        component
        for component in components
        if max(float(pixels[at]) for at in component) == highest or (summits & component and len(component) >= least)
    ]
    boxes = sorted(
        (min(x for _, x in c), min(y for y, _ in c), max(x for _, x in c), max(y for y, _ in c), len(c)) for c in kept
    )
    got = sorted((r.x, r.y, r.x + r.width - 1, r.y + r.height - 1, r.area_px) for r in findings.regions)
    if len([c for c in kept if max(float(pixels[at]) for at in c) == highest]) == 1:
        assert got == boxes
        assert np.count_nonzero(findings.mask) == sum(map(len, kept))
    assert set(np.unique(findings.mask)) <= {0, 255}
    assert [r.peak for r in findings.regions] == sorted((r.peak for r in findings.regions), reverse=True)
    assert findings.regions[0].peak == pytest.approx(image.score, rel=1e-5)


@settings(deadline=None)
@given(maps, st.integers(1, 60), st.integers(1, 60))
def test_the_largest_pixel_is_the_score(anomaly: np.ndarray, width: int, height: int) -> None:
    assert upsample(anomaly, height, width).max() == pytest.approx(float(anomaly.max()), rel=1e-6, abs=1e-7)


def test_an_image_that_is_ok_has_an_empty_mask() -> None:
    findings = cut(judged(np.full((8, 8), 0.89), 30, 20))
    assert findings.mask.shape == (20, 30)
    assert not findings.mask.any()


def test_a_low_area_counts_only_where_it_reaches_the_review_band() -> None:
    anomaly = np.zeros((16, 16))
    anomaly[2, 2:6] = [0.6, 0.95, 0.6, 0.6]
    anomaly[12, 8:12] = 0.8
    findings = cut(judged(anomaly, 160, 160))
    assert len(findings.regions) == 1
    assert findings.regions[0].y < 40
    assert not findings.mask[100:].any()
    assert findings.regions[0].width > 20


def test_the_region_of_the_peak_stays_however_small() -> None:
    anomaly = np.zeros((16, 16))
    anomaly[5, 5] = 1.2
    anomaly[11, 11] = 1.1
    findings = cut(judged(anomaly, 64, 64), min_area_px=10_000)
    assert [region.peak for region in findings.regions] == pytest.approx([1.2])


def test_at_most_a_hundred_regions_the_strongest_first() -> None:
    anomaly = np.zeros((64, 64))
    anomaly[::4, ::4] = np.linspace(1.2, 2.0, 256).reshape(16, 16)
    findings = cut(judged(anomaly, 640, 640), min_area_px=0)
    assert len(findings.regions) == MOST_REGIONS
    assert findings.regions[0].peak == pytest.approx(2.0)
    assert len(flood(findings.mask[::2, ::2])) == MOST_REGIONS


def test_a_large_image_is_cut_quickly() -> None:
    anomaly = np.random.default_rng(0).random((64, 64)) * 1.3
    image = judged(anomaly, 2000, 2000)
    started = time.process_time()
    cut(image)
    assert time.process_time() - started < 2.0


def test_the_skirt_of_a_strong_defect_is_not_cut_into_regions_of_its_own() -> None:
    y, x = np.mgrid[:64, :64]
    skirt = 8 * np.exp(-((y - 30) ** 2 + (x - 30) ** 2) / (2 * 9.0**2))
    second = 2 * np.exp(-((y - 58) ** 2 + (x - 6) ** 2) / (2 * 2.0**2))
    findings = cut(judged((skirt + second).astype(np.float32), 512, 512))
    assert len(findings.regions) == 2
    assert findings.regions[0].width < 512 * 0.4
    assert findings.regions[1].y > 512 * 0.8


@pytest.mark.parametrize("peak", [1.5, 5.0, 50.0])
@pytest.mark.parametrize("tops", [1.3, 3.0, 60.0])
def test_a_strong_defect_marks_its_place_and_not_the_image(peak: float, tops: float) -> None:
    """Statistics that are sure make a score of hundreds; what the map says of other places stays what it is."""
    rng = np.random.default_rng(0)
    evidence = Evidence.learned(np.exp(rng.normal(0, (0.1, 0.2, 0.2), (60, 3))))
    y, x = np.mgrid[:64, :64]
    map_HW = rng.uniform(0.2, 0.6, (64, 64)) + peak * np.exp(-((y - 20) ** 2 + (x - 40) ** 2) / 18)
    maps = np.stack([map_HW, np.full((64, 64), tops), np.full((64, 64), tops)]).astype(np.float32)
    good = [
        np.stack([rng.uniform(0.2, 1.0, (64, 64)), *np.full((2, 64, 64), top)]) for top in rng.lognormal(0, 0.1, 40)
    ]
    calibration, _ = calibrated([one.astype(np.float32) for one in good], evidence, None, 0.01)
    one = scored(maps, calibration, 256, 256, None, evidence)
    assert one.anomaly_map.max() == pytest.approx(one.normalised_score, rel=1e-5)
    if one.verdict == "OK":
        return
    findings = cut(one)
    assert len(findings.regions) == 1
    assert 0 < (findings.mask > 0).mean() < 0.06
    region = findings.regions[0]
    assert region.x <= 4 * 40 + 2 <= region.x + region.width
    assert region.y <= 4 * 20 + 2 <= region.y + region.height
