"""How well scores and maps separate good from defective, as the field reports it: per product, all pixels pooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PIXEL_BINS = 1 << 16
"""Bins of the pooled pixel histogram. Pixels that share a bin count as ties, which bounds the error of pixel_auroc by
half the chance that a good and a defective pixel share one."""


def image_auroc(scores: Sequence[float] | np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Area under the ROC curve; labels 1 = defective. Ties count half. nan where one class is missing."""
    score, label = _checked(scores, labels)
    _, ranks = np.unique(score, return_inverse=True)
    positive = np.bincount(ranks, weights=label)
    negative = np.bincount(ranks, weights=~label)
    return _auroc_from_counts(positive, negative)


def average_precision(scores: Sequence[float] | np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Sum over thresholds of (gain in recall) * precision, without interpolation. nan where nothing is defective."""
    score, label = _checked(scores, labels)
    if not label.any():
        return float("nan")
    _, ranks = np.unique(score, return_inverse=True)
    positive = np.cumsum(np.bincount(ranks, weights=label)[::-1])
    total = np.cumsum(np.bincount(ranks)[::-1])
    gain = np.diff(positive, prepend=0.0) / positive[-1]
    return float(np.sum(gain * positive / total))


def f1_max(scores: Sequence[float] | np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Largest F1 over all thresholds, with an image defective at or above one. nan where nothing is defective."""
    score, label = _checked(scores, labels)
    if not label.any():
        return float("nan")
    _, ranks = np.unique(score, return_inverse=True)
    hits = np.cumsum(np.bincount(ranks, weights=label)[::-1])
    flagged = np.cumsum(np.bincount(ranks)[::-1])
    return float(np.max(2 * hits / (flagged + label.sum())))


def pixel_auroc(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> float:
    """Area under the ROC curve of all pixels of all images pooled; masks are defective where > 0.5.

    maps and masks: pairs of equal [H, W]. Exact up to 65,536 distinct values; above, values are binned between the
    least and the greatest (see PIXEL_BINS), which was below 1e-4 on real maps. nan where one class is missing.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: give one mask per map")
    if not maps:
        return float("nan")
    for index, (anomaly, mask) in enumerate(zip(maps, masks, strict=True)):
        if anomaly.shape != mask.shape:
            raise ValueError(f"pair {index}: map {anomaly.shape} and mask {mask.shape} differ; resize one to the other")
    if sum(anomaly.size for anomaly in maps) <= PIXEL_BINS:
        return image_auroc(
            np.concatenate([np.asarray(anomaly, dtype=np.float64).ravel() for anomaly in maps]),
            np.concatenate([(np.asarray(mask) > 0.5).ravel() for mask in masks]),
        )
    low = min(float(np.min(anomaly)) for anomaly in maps)
    high = max(float(np.max(anomaly)) for anomaly in maps)
    if not np.isfinite([low, high]).all():
        raise ValueError("an anomaly map holds nan or infinite values; find the image that scores so")
    positive, negative = np.zeros(PIXEL_BINS), np.zeros(PIXEL_BINS)
    scale = (PIXEL_BINS - 1) / (high - low) if high > low else 0.0
    for anomaly, mask in zip(maps, masks, strict=True):
        bins = ((np.asarray(anomaly, dtype=np.float64) - low) * scale).astype(np.int64)
        defective = np.asarray(mask) > 0.5
        positive += np.bincount(bins[defective], minlength=PIXEL_BINS)
        negative += np.bincount(bins[~defective], minlength=PIXEL_BINS)
    return _auroc_from_counts(positive, negative)


def _auroc_from_counts(positive: np.ndarray, negative: np.ndarray) -> float:
    """positive, negative: how many of each class hold each value, values ascending."""
    if positive.sum() == 0 or negative.sum() == 0:
        return float("nan")
    below = np.cumsum(negative) - negative
    wins = np.sum(positive * (below + 0.5 * negative))
    return float(wins / (positive.sum() * negative.sum()))


def _checked(scores: Sequence[float] | np.ndarray, labels: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = np.asarray(scores, dtype=np.float64).ravel()
    label = np.asarray(labels).ravel() > 0.5
    if score.shape != label.shape:
        raise ValueError(f"{score.size} scores and {label.size} labels: give one label per score")
    if not np.isfinite(score).all():
        raise ValueError("a score is nan or infinite; find the image that scores so")
    return score, label
