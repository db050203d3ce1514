"""One run: a method fitted on a category's good images with a seed, and what it makes of the test images.

A run's result is a small file of its own, so a benchmark that was stopped goes on where it was.
"""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch

from jobs.benchmark.evidence_rows import EVIDENCE_ROWS, EvidenceOf, EvidenceRow
from jobs.benchmark.layouts import Category
from jobs.benchmark.shared_fit import shared_fit
from jobs.benchmark.shifts import discoloured_found, under_shifts
from jobs.fitting.datasets import GOOD
from jobs.fitting.datasets.masks import encoded, read_truth
from model import (
    Calibration,
    Engine,
    Fit,
    FitOptions,
    Frame,
    ModelBundle,
    Scored,
    aupimo,
    aupro,
    average_precision,
    calibrate,
    cut,
    encode_heat_png,
    encode_mask_png,
    f1_max,
    image_auroc,
    pixel_auroc,
    read_frame,
    split,
)
from model.fitting.feature_cache import FeatureCache
from model.images.frames import normalised
from model.maps.resampling import upsample
from model.measures.baselines import Baseline, baseline
from model.measures.probe import PROBE_IMAGES, Sensitivity, spoiled
from model.network.student import Method as StudentMethod
from model.teachers import load_teacher
from model.verdict.scored import scored, verdict_of

Method = str
STUDENTS: tuple[str, ...] = get_args(StudentMethod)
EVIDENCE_OF_STUDENT = "student"
"""The default method, whose image score is its map's maximum, without statistics."""
METHODS: tuple[str, ...] = (*STUDENTS, EVIDENCE_OF_STUDENT, *EVIDENCE_ROWS, *get_args(Baseline))
HELD_OUT_FRACTION = 0.2
WORST_EACH = 4
_CHUNK = 16

OnPhase = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is run: every category with every method and seed. shifted: under shifts, too (jobs/benchmark/shifts.py).

    images: good ones that fits get, other ones for each seed; none: all.
    """

    categories: tuple[Category, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    options: FitOptions
    shifted: bool = False
    images: int | None = None

    def config(self) -> dict[str, Any]:
        """What results depend on besides category, method and seed."""
        options = self.options.model_dump(mode="json", exclude={"method", "seed", "cache_limit_bytes"})
        return options | ({"shifted": True} if self.shifted else {}) | ({"images": self.images} if self.images else {})


@dataclass(frozen=True)
class WorstCase:
    """An image that a method judges worst: a good one with a high score, or a defective one with a low score.

    truth: the drawn mask. heat, mask, truth: PNG in base64; the heat map has the detector's own resolution.
    """

    path: str
    kind: str
    truth: str | None
    normalised_score: float
    verdict: str
    heat: str
    mask: str


@dataclass(frozen=True)
class Result:
    """Figures of one run; shares of 1, None where the category does not allow the measure (no masks drawn).

    Rates are those at the options' target of false rejects; those that end in _1 at a target of 1%. mask_iou: mean over
    defective images that have a truth and were given a mask. sensitivity: what the gate's probe of made-up defects says
    of it (model/measures/probe.py).
    """

    seed: int
    image_auroc: float
    average_precision: float
    f1_max: float
    pixel_auroc: float | None
    aupro: float | None
    aupro_05: float | None
    aupimo: float | None
    mask_iou: float | None
    false_reject_rate: float
    escape_rate: float
    review_rate: float
    false_reject_rate_1: float
    escape_rate_1: float
    review_rate_1: float
    sensitivity: float
    fit_seconds: float  # without the teacher's pass, or the fit, where another method of the seed has made it
    explained_variance: tuple[float, ...] | None
    level_weights: dict[str, list[float]] | None
    shifted: dict[str, dict[str, float]] | None
    """Of each shift false rejects, escapes, image AUROC; none where the test images were measured as they are alone."""
    discoloured: dict[str, float] | None
    """Shares of good test images found out once they are discoloured (jobs/benchmark/shifts.py); none as above."""
    worst: tuple[WorstCase, ...]
    """The highest-scored good and the lowest-scored defective images."""
    final_loss: float | None = None
    """Of a student's fit."""


_NO_MEASURES = ("seed", "explained_variance", "level_weights", "shifted", "discoloured", "worst")
MEASURES = tuple(field.name for field in fields(Result) if field.name not in _NO_MEASURES)


@dataclass(frozen=True, eq=False)
class _Judged:
    """What a method makes of the test images."""

    scored: list[Scored]
    judge: Callable[[Sequence[Frame]], list[Scored]]
    seconds: float
    at_one_percent: Calibration
    explained_variance: tuple[float, ...] | None = None
    level_weights: dict[str, list[float]] | None = None
    final_loss: float | None = None


def run_plan(
    plan: Plan, folder: Path, on_run: Callable[[str, int, int], None], on_phase: OnPhase
) -> dict[str, dict[str, list[Result]]]:
    """Run what is not yet in the folder; returns method -> category -> results by seed.

    Args:
        on_run: called with (name of the run, runs done, of) before each run and at the end.
        on_phase: called with (phase, done, of) within a run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # All methods of a seed in a row: they share the teacher's features.
    runs = [(c, m, s) for c in plan.categories for s in plan.seeds for m in plan.methods]
    results: dict[str, dict[str, list[Result]]] = {method: {} for method in plan.methods}
    images: tuple[str, _Images] | None = None
    for done, (category, method, seed) in enumerate(runs):
        on_run(f"{category.name} {method} seed {seed}", done, len(runs))
        file = folder / f"{category.name}.{method}.{seed}.{_digest(plan, category)}.json"
        if file.is_file():
            result = _read(file)
        else:
            if images is None or images[0] != category.name:
                images = (category.name, _Images(category, plan.options.size, plan.options.tiles, plan.images))
            options = plan.options.model_copy(update={"seed": seed})
            result = _run(images[1], method, options, on_phase, shifted=plan.shifted)
            file.write_text(json.dumps(asdict(result), indent=2) + "\n")
        results[method].setdefault(category.name, []).append(result)
    on_run("done", len(runs), len(runs))
    return results


class _Images:
    """A category's frames and masks, read once for all methods and seeds."""

    def __init__(self, category: Category, size: int, tiled: bool = False, most: int | None = None) -> None:
        read = partial(read_frame, size=size, tiled=tiled)
        good = [path.read_bytes() for path in category.train]
        self.name = category.name
        self._good = [read(data) for data in good]
        self._good_digests = [hashlib.sha256(data).hexdigest() for data in good]
        self._most = most
        self.test = [read(image.path.read_bytes()) for image in category.test]
        self.files = category.test
        self.defective = [image.kind != GOOD for image in category.test]
        self.masks = [self._mask(image.masks, image.kind, n) for n, image in enumerate(category.test)]
        self.features: tuple[int, FeatureCache | None] = (-1, None)  # of the last seed
        self.fitted: tuple[FitOptions, Fit, ModelBundle] | None = None  # the last one, of whichever method

    def split(self, seed: int) -> tuple[list[Frame], list[Frame]]:
        """Good images to learn from and held-out ones: another seed holds out, and leaves out, others."""
        drawn = sorted(range(len(self._good)), key=lambda index: _digest_of(f"draw {seed}", self._good_digests[index]))
        chosen = sorted(drawn[: self._most])
        train_at, held_at = split([_digest_of(str(seed), self._good_digests[index]) for index in chosen])
        return [self._good[chosen[at]] for at in train_at], [self._good[chosen[at]] for at in held_at]

    def _mask(self, paths: Sequence[Path], kind: str, index: int) -> np.ndarray | None:
        """Ground truth at the image's size: empty for a good image, None for a defect that nobody drew."""
        height, width = self.test[index].height, self.test[index].width
        if kind == GOOD:
            return np.zeros((height, width), dtype=bool)
        if not paths:
            return None
        return read_truth(paths, height, width)


def _run(images: _Images, method: Method, options: FitOptions, on_phase: OnPhase, *, shifted: bool) -> Result:
    judge = _baseline if method in get_args(Baseline) else _student
    judged = judge(images, method, options, on_phase)
    on_phase("measuring", 0, 1)
    under = under_shifts(judged.judge, images.test, images.defective) if shifted else None
    good = [frame for frame, is_bad in zip(images.test, images.defective, strict=True) if not is_bad]
    scores = [one.normalised_score for one in judged.scored]
    at_target = _rates([one.verdict for one in judged.scored], images)
    at_one_percent = _rates([verdict_of(one.score, judged.at_one_percent) for one in judged.scored], images)
    return Result(
        seed=options.seed,
        image_auroc=image_auroc(scores, images.defective),
        average_precision=average_precision(scores, images.defective),
        f1_max=f1_max(scores, images.defective),
        **_pixels(judged.scored, images),
        **at_target,
        **{f"{name}_1": rate for name, rate in at_one_percent.items()},
        sensitivity=_sensitivity(judged, images.split(options.seed)[1][:PROBE_IMAGES], options.size),
        fit_seconds=judged.seconds,
        explained_variance=judged.explained_variance,
        level_weights=judged.level_weights,
        shifted=under,
        discoloured=discoloured_found(judged.judge, good) if shifted else None,
        worst=tuple(_worst(images, judged.scored)),
        final_loss=judged.final_loss,
    )


def _sensitivity(judged: _Judged, good: Sequence[Frame], size: int) -> float:
    copies = [spoiled(frame, np.random.default_rng((0, index)), size) for index, frame in enumerate(good)]
    scores = [one.normalised_score for one in judged.judge([*good, *(copy for of in copies for copy in of)])]
    each = len(copies[0])
    of_copies = [scores[start : start + each] for start in range(len(good), len(scores), each)]
    return Sensitivity.of(scores[: len(good)], of_copies).value


def _rates(verdicts: Sequence[str], images: _Images) -> dict[str, float]:
    good, bad = ([v for v, is_bad in zip(verdicts, images.defective, strict=True) if is_bad == of] for of in (0, 1))
    return {
        "false_reject_rate": _share(good, "NotOK"),
        "escape_rate": _share(bad, "OK"),
        "review_rate": _share(verdicts, "NotDecidable"),
    }


def _at_one_percent(scores: Sequence[float]) -> Calibration:
    """From raw scores of held-out good images; what it says of maps is not to be used."""
    return calibrate(scores, np.array(scores)[:, None], 0.01)


def _student(images: _Images, method: Method, options: FitOptions, on_phase: OnPhase) -> _Judged:
    begun = time.monotonic()
    row = method if method in EVIDENCE_ROWS else None
    chosen = {"evidence": "student"} if method == EVIDENCE_OF_STUDENT else {} if row else {"method": method}
    options = FitOptions.model_validate({**options.model_dump(), **chosen})
    features = images.features[1] if images.features[0] == options.seed else None
    train, held_out = images.split(options.seed)
    if row and images.fitted and images.fitted[0] == options:
        _, fit, bundle = images.fitted  # rows of the evidence differ in what is made of one fit
    elif options.workers > 1:
        on_phase(f"fit by {options.workers} processes", 0, 1)
        bundle = shared_fit(images.name, train, held_out, options)
    else:
        fit = Fit(images.name, train, held_out, options, _device(), features)
        bundle = fit.run(lambda report: on_phase(report.phase, report.step, report.steps))
    if options.workers == 1:
        images.features = (options.seed, fit.features)
        images.fitted = (options, fit, bundle)
    seconds = time.monotonic() - begun
    training = bundle.manifest.training
    if row:
        other = EvidenceOf(cast(EvidenceRow, row), fit, bundle)
        limits = _at_one_percent(other.held_out_scores)
        return _Judged(other.judge(images.test), other.judge, seconds, limits, training.explained_variance)
    engine = Engine(lambda _: bundle, device=_device())

    def judged(frames: Sequence[Frame]) -> list[Scored]:
        chunks = (frames[start : start + _CHUNK] for start in range(0, len(frames), _CHUNK))
        return [one for chunk in chunks for one in engine.score(chunk, [images.name] * len(chunk))]

    limits = _at_one_percent(bundle.manifest.heldout_scores)
    return _Judged(
        judged(images.test),
        judged,
        seconds,
        limits,
        training.explained_variance,
        training.level_weights,
        training.final_loss,
    )


def _baseline(images: _Images, method: Method, options: FitOptions, on_phase: OnPhase) -> _Judged:
    begun = time.monotonic()
    teacher = load_teacher(options.backbone, _device())
    made = baseline(cast(Baseline, method), teacher.spec, options.size, options.seed)

    def levels(frames: Sequence[Frame], phase: str) -> Iterator[list[torch.Tensor]]:
        for start in range(0, len(frames), _CHUNK):
            on_phase(phase, start, len(frames))
            chunk = frames[start : start + _CHUNK]
            yield teacher(normalised(chunk, teacher.spec.mean, teacher.spec.std, _device()))

    def maps(frames: Sequence[Frame], phase: str) -> np.ndarray:
        return np.concatenate([made.maps(batch).cpu().numpy() for batch in levels(frames, phase)])

    train, held_out = images.split(options.seed)
    with torch.inference_mode():
        made.fit(levels(train, "features"))
        held_out_maps = maps(held_out, "calibration")
    seconds = time.monotonic() - begun
    peaks = held_out_maps.max(axis=(1, 2))
    calibration = calibrate(peaks, held_out_maps, options.target_false_reject_rate)

    @torch.inference_mode()
    def judged(frames: Sequence[Frame]) -> list[Scored]:
        found = maps(frames, "scoring")
        return [scored(map_HW[None], calibration, f.width, f.height) for map_HW, f in zip(found, frames, strict=True)]

    return _Judged(judged(images.test), judged, seconds, _at_one_percent(peaks))


def _pixels(results: Sequence[Scored], images: _Images) -> dict[str, Any]:
    """Measures on all pixels of the images that have a truth, pooled, at the images' own size."""
    pairs = [(one, mask) for one, mask in zip(results, images.masks, strict=True) if mask is not None]
    masks = [mask for _, mask in pairs]
    if not any(mask.any() for mask in masks):
        return {"pixel_auroc": None, "aupro": None, "aupro_05": None, "aupimo": None, "mask_iou": None}
    places = [one.anomaly_map if one.place_map is None else one.place_map for one, _ in pairs]
    maps = [upsample(map_HW, one.height, one.width) for map_HW, (one, _) in zip(places, pairs, strict=True)]
    return {
        "pixel_auroc": pixel_auroc(maps, masks),
        "aupro": aupro(maps, masks, 0.3),
        "aupro_05": aupro(maps, masks, 0.05),
        "aupimo": aupimo(maps, masks),
        "mask_iou": _mask_iou(pairs),
    }


def _mask_iou(pairs: Sequence[tuple[Scored, np.ndarray]]) -> float | None:
    """Mean over the delivered masks of defective images; none where no mask was delivered."""
    found = [
        float((mask & truth).sum() / (mask | truth).sum())
        for one, truth in pairs
        if truth.any() and (mask := cut(one).mask > 0).any()
    ]
    return sum(found) / len(found) if found else None


def _worst(images: _Images, results: Sequence[Scored]) -> Iterator[WorstCase]:
    order = sorted(range(len(results)), key=lambda n: results[n].normalised_score)
    good = [n for n in reversed(order) if not images.defective[n]][:WORST_EACH]
    bad = [n for n in order if images.defective[n]][:WORST_EACH]
    for n in (*good, *bad):
        image, one, truth = images.files[n], results[n], images.masks[n]
        side = one.anomaly_map.shape[0]
        yield WorstCase(
            path=str(image.path),
            kind=image.kind,
            truth=base64.b64encode(encoded(truth)).decode() if truth is not None and truth.any() else None,
            normalised_score=one.normalised_score,
            verdict=one.verdict,
            heat=base64.b64encode(encode_heat_png(replace(one, width=side, height=side))).decode(),
            mask=base64.b64encode(encode_mask_png(cut(one).mask)).decode(),
        )


def _digest_of(purpose: str, digest: str) -> str:
    return hashlib.sha256(f"{purpose} {digest}".encode()).hexdigest()


def _share(verdicts: Sequence[str], which: str) -> float:
    return verdicts.count(which) / len(verdicts) if verdicts else float("nan")


def _digest(plan: Plan, category: Category) -> str:
    """Of what a result depends on: options, and which files the category has."""
    files = [*category.train, *(path for image in category.test for path in (image.path, *image.masks))]
    facts = [plan.config(), [(path.name, path.stat().st_size) for path in files]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _read(file: Path) -> Result:
    values = json.loads(file.read_text())
    return Result(**{**values, "worst": tuple(WorstCase(**case) for case in values["worst"])})


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
