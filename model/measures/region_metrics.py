"""How well anomaly maps cover defects: AUPRO and AUPIMO, exactly, without a grid of thresholds.

Both are integrals over thresholds of a coverage against a false-positive rate (FPR). All distinct values of the maps
are thresholds here, so nothing depends on how finely somebody chose to sample them. Masks are defective where > 0.5;
regions are 8-connected. Figures made from sampled thresholds, or from other limits, are other numbers: don't mix them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.maps.components import connected_runs

AUPIMO_LIMITS = (1e-5, 1e-4)


def aupro(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to an FPR, divided by that FPR (Bergmann et al., IJCV 2021, 5.2.2).

    At each threshold the overlap is the mean, over all regions of all masks, of the share of the region at or above
    it; the FPR is the share of all pixels outside of regions at or above it. The curve is linear between thresholds and
    is cut at the limit: a perfect map has 1, a constant one limit / 2.

    maps, masks: pairs of equal [H, W]; good images have empty masks. nan where no pixel, or every pixel, is defective.
    """
    _check(maps, masks)
    defective = [np.asarray(mask) > 0.5 for mask in masks]
    areas = [_region_areas(mask) for mask in defective]
    regions = sum(count for _, count in areas)
    good = np.concatenate([np.asarray(a)[~mask] for a, mask in zip(maps, defective, strict=True)] or [np.empty(0)])
    if regions == 0 or good.size == 0:
        return float("nan")
    values = np.concatenate([np.asarray(a)[mask] for a, mask in zip(maps, defective, strict=True)])
    shares = np.concatenate([1 / (regions * area[mask]) for (area, _), mask in zip(areas, defective, strict=True)])
    order = np.argsort(values)
    overlap_above = np.append(np.cumsum(shares[order][::-1])[::-1], 0.0)
    value, fpr = _falling(good, np.full(good.size, 1 / good.size), limit)
    # Each distinct value of a good pixel moves the curve from the overlap above it to the overlap at or above it.
    before = overlap_above[np.searchsorted(values[order], value, side="right")]
    after = overlap_above[np.searchsorted(values[order], value, side="left")]
    start = np.concatenate([[0.0], fpr[:-1]])
    share = np.clip((limit - start) / (fpr - start), 0.0, 1.0)  # the step over the limit counts in part
    return float(np.sum((fpr - start) * share * (before + share * (after - before) / 2)) / limit)


def aupimo(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], limits: tuple[float, float] = AUPIMO_LIMITS
) -> float:
    """Mean over defective images of the area under the per-image overlap curve (Bertoldo et al., BMVC 2024).

    The threshold at an FPR is the least one at which the mean, over good images, of the share of pixels at or above it
    does not exceed that FPR. An image's overlap is the share of its defective pixels at or above the threshold,
    integrated over the logarithm of the FPR between the limits and divided by its range: 1 = every defective pixel is
    above everything but a hundred-thousandth of the good ones. nan without good images or without masks.
    """
    _check(maps, masks)
    defective = [np.asarray(mask) > 0.5 for mask in masks]
    good = [np.asarray(a).ravel() for a, mask in zip(maps, defective, strict=True) if not mask.any()]
    spoiled = [np.sort(np.asarray(a)[mask]) for a, mask in zip(maps, defective, strict=True) if mask.any()]
    if not good or not spoiled:
        return float("nan")
    low, high = limits
    shares = np.concatenate([np.full(values.size, 1 / (len(good) * values.size)) for values in good])
    value, fpr = _falling(np.concatenate(good), shares, high)
    # Between one FPR and the next larger one the threshold, and with it the overlap, stays what it is. Below the first
    # FPR the threshold is just above the largest value of a good image.
    edges = np.clip(np.concatenate([[low], fpr, [np.inf]]), low, high)
    widths = np.diff(np.log(edges)) / np.log(high / low)
    areas = []
    for scores in spoiled:
        below = np.searchsorted(scores, np.append(value[:1], value), side="left")
        below[0] = np.searchsorted(scores, value[0], side="right")
        areas.append(float(np.sum(widths * (scores.size - below) / scores.size)))
    return float(np.mean(areas))


def _falling(values: np.ndarray, shares: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in falling order and the sum of shares at or above each, up to the first sum beyond the limit."""
    # What is certainly needed is sorted; sorting all would take most of the time.
    count = min(values.size, int(limit / float(shares.min())) + 2)
    top = np.partition(values, values.size - count)[values.size - count]
    kept = values >= top
    value, share = values[kept], shares[kept]
    order = np.argsort(-value)
    value = value[order]
    last = np.flatnonzero(np.append(value[1:] != value[:-1], True))
    fpr = np.cumsum(share[order])[last]
    # Sums of the same shares in another order differ in the last digits.
    until = int(np.searchsorted(fpr, limit * (1 + 1e-12), side="right")) + 1
    return value[last][:until], fpr[:until]


def _region_areas(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """For each defective pixel the area of its region, [H, W], and the number of regions."""
    area_HW = np.zeros(mask.shape, dtype=np.int64)
    if not mask.any():
        return area_HW, 0
    runs = connected_runs(mask)
    areas = np.bincount(runs.component, weights=runs.stop - runs.start).astype(np.int64)
    for row, start, stop, component in zip(runs.row, runs.start, runs.stop, runs.component, strict=True):
        area_HW[row, start:stop] = areas[component]
    return area_HW, runs.count


def _check(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: give one mask per map")
    for index, (anomaly, mask) in enumerate(zip(maps, masks, strict=True)):
        if anomaly.shape != mask.shape:
            raise ValueError(f"pair {index}: map {anomaly.shape} and mask {mask.shape} differ; resize one to the other")
        if not np.isfinite(anomaly).all():
            raise ValueError(f"map {index} holds nan or infinite values; find the image that scores so")
