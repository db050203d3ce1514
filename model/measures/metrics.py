"""How well scores and maps separate good from defective, as the field reports it: per product, all pixels pooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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


def spearman(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """Rank correlation: Pearson's of the ranks, equal values share the mean of theirs. nan where all are equal."""
    first, second = (_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values_N: np.ndarray) -> np.ndarray:
    smaller = (values_N[:, None] > values_N).sum(axis=1)
    equal = (values_N[:, None] == values_N).sum(axis=1)
    ranks: np.ndarray = smaller + (equal + 1) / 2
    return ranks


def pixel_auroc(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> float:
    """Area under the ROC curve of all pixels of all images pooled; masks are defective where > 0.5.

    maps, masks: pairs of equal [H, W]. Exact: no bins, no sampled thresholds; ties count half. nan where one class is
    missing.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: give one mask per map")
    for index, (anomaly, mask) in enumerate(zip(maps, masks, strict=True)):
        if anomaly.shape != mask.shape:
            raise ValueError(f"pair {index}: map {anomaly.shape} and mask {mask.shape} differ; resize one to the other")
        if not np.isfinite(anomaly).all():
            raise ValueError(f"map {index} holds nan or infinite values; find the image that scores so")
    defective = [np.asarray(mask) > 0.5 for mask in masks]
    good = np.concatenate([np.asarray(a)[~mask] for a, mask in zip(maps, defective, strict=True)] or [np.empty(0)])
    bad = np.concatenate([np.asarray(a)[mask] for a, mask in zip(maps, defective, strict=True)] or [np.empty(0)])
    if good.size == 0 or bad.size == 0:
        return float("nan")
    # Both are sorted, so that the search walks through memory instead of jumping.
    good.sort()
    bad.sort()
    below = np.searchsorted(good, bad, side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(good, bad, side="right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / good.size / bad.size)


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
