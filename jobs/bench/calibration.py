"""`linewatch bench calibration`: do stated false-reject rates and their intervals hold on real images?

A third of a category's good images is fitted on by the product's own recipe (its held-out share included), so that
many good scores are left that no fit has seen: those of the other two thirds and of the good test images. Each split
parts them at random into a calibrating half, which places a threshold and states an interval, and a judging half.

The true rate of a threshold is what the whole production would show; n judged images show it with noise of their own.
So three shares of splits are reported:

    coverage         the count of judged images above the threshold lies in the 95% prediction interval that follows
                     from the stated one: the rate is Beta, the count of judged images is then beta-binomial. This is
                     the honest test: an interval that states 95% must reach 95% here, and one too narrow does not.
    coverage_pooled  the rate among all unseen images lies in the stated interval. The calibrating half is among them,
                     and agrees with the threshold it placed: this share flatters.
    coverage_judged  the rate among the judged images alone lies in the stated interval. Their noise is as large as
                     that of the images that calibrate: a perfect 95% interval reaches about 83% here.

Random halves can only show that interval and threshold do what they say for images of one kind. A camera that has
drifted since is another kind.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.benchmark.layouts import Category, categories
from jobs.fitting.datasets import GOOD
from jobs.session.progress import Screen
from model import Engine, Fit, FitOptions, Frame, read_frame, split
from model.measures.proportions import LOWER, UPPER, percent, percent_interval
from model.verdict.calibration import images_needed, rate_interval, threshold_for

TARGETS = (0.01, 0.05)
_FITTED_SHARE = 3
_CHUNK = 16


@dataclass(frozen=True)
class Coverage:
    """Splits of one category at one target. Rates and coverages are shares of 1; see the module for what they mean.

    mean_absolute_error: of the judged rate against the target. noise: what sampling alone would make of it, by the
    beta-binomial law of the counts; it shrinks with more images, and with nothing else.
    """

    target: float
    splits: int
    calibrating: int
    judged: int
    images_needed: int
    stated_interval: tuple[float, float]
    coverage: float
    coverage_pooled: float
    coverage_judged: float
    mean_rate: float
    mean_absolute_error: float
    noise: float


def bench_calibration(
    folder: Path,
    json_file: Path | None,
    screen: Screen,
    *,
    seed: int = 0,
    splits: int = 20,
    steps: int | None = None,
    size: int | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Fit every category of a folder, judge its splits, write and show the figures.

    Raises:
        DatasetError: the folder holds no category. ModelError: a fit failed, or there are too few good images.
    """
    found = categories(folder)
    if threads:
        torch.set_num_threads(threads)
    chosen = {"seed": seed, "steps": steps, "size": size}
    options = FitOptions.model_validate({name: value for name, value in chosen.items() if value is not None})
    report: dict[str, Any] = {"config": {**options.model_dump(mode="json"), "splits": splits}, "categories": {}}
    for category in found:
        scores = unseen_scores(category, options, screen)
        rows = [judge_splits(scores, target, splits, seed) for target in TARGETS]
        report["categories"][category.name] = {
            "unseen_good_images": len(scores),
            "targets": {f"{row.target:g}": asdict(row) for row in rows},
        }
        if json_file:  # after each category, for a fit takes minutes
            json_file.write_text(json.dumps(report, indent=2) + "\n")
        for row in rows:
            screen.say(f"{category.name}: {_sentence(row)}")
    return report


def unseen_scores(category: Category, options: FitOptions, screen: Screen) -> np.ndarray:
    """Scores, [N], of the good images of a category that a fit of a third of its training images has not seen."""
    order = np.random.default_rng(options.seed).permutation(len(category.train))
    images = [category.train[index].read_bytes() for index in order]
    third = images[: len(images) // _FITTED_SHARE]
    unseen = images[len(third) :] + [image.path.read_bytes() for image in category.test if image.kind == GOOD]
    train_at, held_at = split([hashlib.sha256(data).hexdigest() for data in third])
    train, held_out = ([read_frame(third[index], options.size) for index in at] for at in (train_at, held_at))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with screen.step(f"Fitting {category.name} on {len(third)} good images") as step:
        bundle = Fit(category.name, train, held_out, options, device).run(lambda r: step.advance(r.step, r.steps))
    engine = Engine(lambda _: bundle, device=device)
    scores: list[float] = []
    with screen.step(f"Scoring {len(unseen)} others") as step:
        for start in range(0, len(unseen), _CHUNK):
            frames: list[Frame] = [read_frame(data, options.size) for data in unseen[start : start + _CHUNK]]
            scores += [one.score for one in engine.score(frames, [category.name] * len(frames))]
            step.advance(len(scores), len(unseen))
    return np.array(scores)


def judge_splits(scores: np.ndarray, target: float, splits: int, seed: int = 0) -> Coverage:
    """Place a threshold on random halves of good scores, [N], and count what the other halves make of it."""
    calibrating = len(scores) // 2
    judged = len(scores) - calibrating
    stated = rate_interval(calibrating, target)
    rank = target * (calibrating + 1)
    least, most = prediction_interval(count_law(judged, max(rank, 1.0), calibrating))
    if rank < 1:  # beyond the largest score the threshold may reject nothing at all
        least = 0
    rng = np.random.default_rng((seed, round(1 / target)))
    counts, pooled = [], []
    for _ in range(splits):
        order = rng.permutation(len(scores))
        threshold = threshold_for(scores[order[:calibrating]], target)
        counts.append(int((scores[order[calibrating:]] >= threshold).sum()))
        pooled.append(float((scores >= threshold).mean()))
    rates = np.array(counts) / judged
    return Coverage(
        target=target,
        splits=splits,
        calibrating=calibrating,
        judged=judged,
        images_needed=images_needed(target),
        stated_interval=stated,
        coverage=float(np.mean([least <= count <= most for count in counts])),
        coverage_pooled=_share_within(pooled, stated),
        coverage_judged=_share_within(rates, stated),
        mean_rate=float(rates.mean()),
        mean_absolute_error=float(np.abs(rates - target).mean()),
        noise=float((count_law(judged, rank, calibrating) * np.abs(np.arange(judged + 1) / judged - target)).sum()),
    )


def count_law(judged: int, rank: float, calibrating: int) -> np.ndarray:
    """Probabilities of 0..judged images above the rank-th largest of `calibrating` others: beta-binomial."""
    a, b = rank, calibrating + 1 - rank

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return np.array(
        [
            math.exp(log_beta(a + m, b + judged - m) - log_beta(a, b) - log_beta(m + 1, judged - m + 1)) / (judged + 1)
            for m in range(judged + 1)
        ]
    )


def prediction_interval(law: np.ndarray) -> tuple[int, int]:
    """The narrowest counts outside of which at most 2.5% lie on either side."""
    below = np.cumsum(law)
    return int(np.searchsorted(below, LOWER, side="right")), int(np.searchsorted(below, UPPER))


def _share_within(rates: Sequence[float] | np.ndarray, interval: tuple[float, float]) -> float:
    return float(np.mean([interval[0] <= rate <= interval[1] for rate in rates]))


def _sentence(row: Coverage) -> str:
    enough = "" if row.calibrating >= row.images_needed else f" (too few: {row.images_needed} are needed)"
    return (
        f"{percent(row.target)} aimed at, {percent_interval(row.stated_interval)} stated from {row.calibrating} images"
        f"{enough}; coverage {percent(row.coverage)} of {row.splits} splits (pooled {percent(row.coverage_pooled)}, "
        f"judged alone {percent(row.coverage_judged)}); mean rate {percent(row.mean_rate)}, mean absolute error "
        f"{percent(row.mean_absolute_error)} (sampling alone: {percent(row.noise)})"
    )
