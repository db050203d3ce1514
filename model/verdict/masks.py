"""From the anomaly map to a mask and regions in original pixels.

Hysteresis: a region is an 8-connected area above its extent level with a summit in the review band or above it. An
image that is OK has no such place, so its mask is empty by construction; any other image has at least one region.

The extent level is the pixel threshold, and around a strong peak a share of that peak: the map is smooth, so the skirt
of a defect six times above the threshold would otherwise cover a third of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from model.images.cells import centre_pixels
from model.maps.components import Runs, connected_runs
from model.maps.resampling import Window, upsample, window_above
from model.verdict.scored import Scored, anomaly_pixels

MOST_REGIONS = 100
LEAST_AREA_FRACTION = 5e-5
"""Regions smaller than this fraction of the image are left out, except the one that holds the peak."""

EXTENT_SHARE = 0.6
"""A region extends to this share of the largest value near by."""
NEAR = 0.1
"""How far "near by" reaches, as a fraction of the map's side."""
SUMMIT_REACH = 2


class Region(BaseModel):
    """One defect's box and area in original pixels; peak: its largest normalised score (1.0 = the threshold)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float


@dataclass(frozen=True, eq=False)
class Findings:
    """mask: uint8 [height, width], 255 inside the regions, 0 elsewhere; regions: strongest first, at most 100."""

    mask: np.ndarray
    regions: list[Region]


def cut(scored: Scored, min_area_px: int | None = None) -> Findings:
    """Cut the mask and the regions of one scored image. min_area_px: none takes LEAST_AREA_FRACTION of the image."""
    mask = np.zeros((scored.height, scored.width), dtype=np.uint8)
    if scored.verdict == "OK":
        return Findings(mask, [])
    if min_area_px is None:
        min_area_px = round(LEAST_AREA_FRACTION * mask.size)
    # The peak belongs to a region even if its map, in float32, rounds below the limits.
    low = min(scored.pixel_threshold, float(scored.anomaly_map.max()))
    window = window_above(scored.anomaly_map, low, scored.height, scored.width)
    assert window is not None
    pixels = anomaly_pixels(scored, window)
    levels = upsample(extent_levels(scored.anomaly_map, low, scored.map_power), scored.height, scored.width, window)
    runs = connected_runs(pixels >= levels)
    areas, peaks = _measure(runs, pixels)
    wanted = _with_summit(runs, scored, window) & (areas >= min_area_px)
    wanted[np.argmax(peaks)] = True
    strongest = np.flatnonzero(wanted)
    strongest = strongest[np.argsort(-peaks[strongest], kind="stable")][:MOST_REGIONS]
    _paint(mask[window.top : window.bottom, window.left : window.right], runs, np.isin(runs.component, strongest))
    return Findings(mask, _regions(runs, areas, peaks, strongest, window))


def summits(map_HW: np.ndarray, least: float) -> np.ndarray:
    """Cells that are the largest within two cells of them and reach `least`, bool [h, w].

    What a strong peak's extent level cuts off its skirt has none: it rises towards the peak to its very edge.
    """
    summit: np.ndarray = (map_HW >= _highest_near(map_HW, SUMMIT_REACH)) & (map_HW >= np.float32(least))
    return summit


def _with_summit(runs: Runs, scored: Scored, window: Window) -> np.ndarray:
    """Which components hold the centre of a summit."""
    holds = np.zeros(runs.count, dtype=bool)
    cells_y, cells_x = np.nonzero(summits(scored.anomaly_map, scored.review_low))
    rows = centre_pixels(scored.anomaly_map.shape[0], scored.height)[cells_y] - window.top
    columns = centre_pixels(scored.anomaly_map.shape[1], scored.width)[cells_x] - window.left
    for row, column in zip(rows, columns, strict=True):
        at = (runs.row == row) & (runs.start <= column) & (column < runs.stop)
        holds[runs.component[at]] = True
    return holds


def _highest_near(map_HW: np.ndarray, reach: int) -> np.ndarray:
    """The largest value within `reach` cells, float32 [h, w]."""
    padded = np.pad(map_HW.astype(np.float32, copy=False), reach, constant_values=-np.inf)
    return _highest_ahead(_highest_ahead(padded, 2 * reach + 1).T, 2 * reach + 1).T


def _highest_ahead(values: np.ndarray, span: int) -> np.ndarray:
    """The largest of each `span` values along the rows, [h, w - span + 1]. Spans are doubled, then two laid over."""
    width = values.shape[1] - span + 1
    reached = 1
    while 2 * reached <= span:
        values = np.maximum(values[:, :-reached], values[:, reached:])
        reached *= 2
    highest: np.ndarray = np.maximum(values[:, :width], values[:, span - reached : span - reached + width])
    return highest


def extent_levels(map_HW: np.ndarray, low: float, power: float = 1.0) -> np.ndarray:
    """Down to which value a region extends at each cell, float32 [h, w]: never below `low`.

    power: that the map was taken to; the share is one of the map before that.
    """
    reach = max(1, round(NEAR * max(map_HW.shape)))
    return np.maximum(np.float32(EXTENT_SHARE**power) * _highest_near(map_HW, reach), np.float32(low))


def _measure(runs: Runs, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area in pixels and largest value of each component."""
    areas = np.bincount(runs.component, weights=runs.stop - runs.start, minlength=runs.count).astype(np.int64)
    # A column of -inf lets a run that ends at the border have a stop to end at.
    padded = np.pad(pixels, ((0, 0), (0, 1)), constant_values=-np.inf)
    pitch = padded.shape[1]
    bounds = np.stack([runs.row * pitch + runs.start, runs.row * pitch + runs.stop], axis=1).ravel()
    peaks = np.full(runs.count, -np.inf, dtype=np.float32)
    np.maximum.at(peaks, runs.component, np.maximum.reduceat(padded.ravel(), bounds)[::2])
    return areas, peaks


def _paint(mask: np.ndarray, runs: Runs, chosen: np.ndarray) -> None:
    """Set the chosen runs to 255, in place."""
    steps = np.zeros((mask.shape[0], mask.shape[1] + 1), dtype=np.int8)
    steps[runs.row[chosen], runs.start[chosen]] = 1
    steps[runs.row[chosen], runs.stop[chosen]] = -1
    mask[np.cumsum(steps[:, :-1], axis=1, dtype=np.int8) > 0] = 255


def _regions(runs: Runs, areas: np.ndarray, peaks: np.ndarray, components: np.ndarray, window: Window) -> list[Region]:
    left = np.full(runs.count, np.iinfo(np.int64).max)
    top, right, bottom = left.copy(), np.full(runs.count, -1), np.full(runs.count, -1)
    np.minimum.at(left, runs.component, runs.start)
    np.minimum.at(top, runs.component, runs.row)
    np.maximum.at(right, runs.component, runs.stop)
    np.maximum.at(bottom, runs.component, runs.row + 1)
    return [
        Region(
            x=int(left[c]) + window.left,
            y=int(top[c]) + window.top,
            width=int(right[c] - left[c]),
            height=int(bottom[c] - top[c]),
            area_px=int(areas[c]),
            peak=float(peaks[c]),
        )
        for c in components
    ]
