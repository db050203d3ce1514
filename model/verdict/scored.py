"""The verdict on one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.manifest import Calibration
from model.maps.resampling import Window, upsample

Verdict = Literal["OK", "NotOK", "NotDecidable"]
"""OPC 40001's words. NotDecidable: the score lies in the review band, a person decides."""


@dataclass(frozen=True, eq=False)
class Scored:
    """An image's score and its anomaly map, with what cutting a mask needs.

    score and threshold are raw; normalised_score, review_low, review_high, pixel_threshold and anomaly_map
    (float32 [S / 4, S / 4]) are divided by the threshold, so that 1.0 is the threshold. normalised_score is the
    maximum of anomaly_map. width, height: the original image's, in pixels. ignored: pixels of it
    that don't count, bool [height, width]; none: all do.
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
    map_HW: np.ndarray, calibration: Calibration, width: int, height: int, ignored: np.ndarray | None = None
) -> Scored:
    """Judge one image by its raw smoothed map, float32 [S / 4, S / 4], 0 where it is ignored."""
    score = float(map_HW.max())
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
    )
