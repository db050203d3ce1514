"""The verdict on one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.evidence.evidence import Evidence
from model.images.ignored import Cover
from model.manifest import Calibration
from model.maps.resampling import Window, upsample
from model.verdict.calibration import calibrate

_TINY = 1e-12

Verdict = Literal["OK", "NotOK", "NotDecidable"]
"""OPC 40001's words. NotDecidable: the score lies in the review band, a person decides."""


@dataclass(frozen=True, eq=False)
class Scored:
    """An image's score and its anomaly map, with what cutting a mask needs.

    score and threshold are raw; normalised_score, review_low, review_high, pixel_threshold and anomaly_map
    (float32 [S / 4, S / 4]) are divided by the threshold, so that 1.0 is the threshold. normalised_score is the
    maximum of anomaly_map. width, height: the original image's, in pixels. ignored: pixels of it
    that don't count, bool [height, width]; none: all do. place_map: the anomaly map before its maximum was made the
    score, whose values compare best between images: for figures over many of them. map_power: what it was taken to.
    """

    score: float
    normalised_score: float
    threshold: float
    verdict: Verdict
    anomaly_map: np.ndarray
    width: int
    height: int
    review_low: float
    review_high: float
    pixel_threshold: float
    ignored: np.ndarray | None = None
    place_map: np.ndarray | None = None
    map_power: float = 1.0


def anomaly_pixels(scored: Scored, window: Window | None = None) -> np.ndarray:
    """The anomaly map at the original size, float32; what is ignored is 0. window: the image's part; none for all."""
    pixels = upsample(scored.anomaly_map, scored.height, scored.width, window)
    if scored.ignored is not None:
        whole = window or Window(0, scored.height, 0, scored.width)
        pixels[scored.ignored[whole.top : whole.bottom, whole.left : whole.right]] = 0
    return pixels


def verdict_of(score: float, calibration: Calibration) -> Verdict:
    """OK below the review band, NotOK from its upper end on."""
    if score < calibration.review_low:
        return "OK"
    return "NotOK" if score >= calibration.review_high else "NotDecidable"


def scored(
    maps_KHW: np.ndarray,
    calibration: Calibration,
    width: int,
    height: int,
    ignored: np.ndarray | None = None,
    evidence: Evidence | None = None,
) -> Scored:
    """Judge one image by its raw maps, float32 [K, S / 4, S / 4] (Student.anomaly_maps), 0 where it is ignored."""
    map_HW, score, power = judged(maps_KHW, evidence)
    threshold = calibration.threshold
    return Scored(
        score=score,
        normalised_score=score / threshold,
        threshold=threshold,
        verdict=verdict_of(score, calibration),
        anomaly_map=(map_HW / np.float32(threshold)).astype(np.float32, copy=False),
        width=width,
        height=height,
        review_low=calibration.review_low / threshold,
        review_high=calibration.review_high / threshold,
        pixel_threshold=calibration.pixel_threshold / threshold,
        ignored=ignored,
        place_map=maps_KHW[0],
        map_power=power,
    )


def judged(maps_KHW: np.ndarray, evidence: Evidence | None) -> tuple[np.ndarray, float, float]:
    """An image's map, [S / 4, S / 4], whose maximum is the image score; that score; and the map's power.

    Without evidence the score is what the map says; with it the map follows (Evidence.map_power), so that mask and
    verdict agree.
    """
    map_HW = maps_KHW[0]
    top = max(float(map_HW.max()), _TINY)
    if evidence is None:
        return map_HW, float(map_HW.max()), 1.0
    score = evidence.score(peaks([maps_KHW])[0][1:])
    power = evidence.map_power(score, top)
    return np.float32(score) * (map_HW / np.float32(top)) ** np.float32(power), score, power


def peaks(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Of each image's map and statistics, float64 [N, K]."""
    return np.array([maps_KHW.max(axis=(1, 2)) for maps_KHW in maps], dtype=np.float64)


def calibrated(
    maps: Sequence[np.ndarray], evidence: Evidence | None, cover: Cover | None, target_false_reject_rate: float
) -> tuple[Calibration, tuple[float, ...]]:
    """Limits from the raw maps of held-out good images, each [K, S / 4, S / 4], and their scores. Raises FitError."""
    results = [judged(maps_KHW, evidence) for maps_KHW in maps]
    found = [cover.counted_values(map_HW) if cover else map_HW for map_HW, _, _ in results]
    scores = tuple(score for _, score, _ in results)
    return calibrate(scores, found, target_false_reject_rate), scores
