"""Fitting a product's student from good images alone.

The main path is `Fit.run`: features, training, calibration. The student sees spoiled copies of the good images and
rebuilds the good ones. What it sees in a step and its learning rate are pure functions of
the seed and the step, so a fit that was stopped and restored ends at the same bits as one that was not. The last step's
weights are kept; nothing is selected on test images.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import torch

from model.engine.choice import make_backend
from model.engine.serving_form import serving_form
from model.errors import FitError
from model.evidence.evidence import Evidence
from model.fitting.bearing import borne
from model.fitting.checkpoint import Facts, restore_checkpoint, save_checkpoint
from model.fitting.corruption import corrupted
from model.fitting.feature_cache import FeatureCache
from model.fitting.held_out import examine
from model.fitting.options import FitOptions
from model.fitting.preparation import as_scored, check_area, check_frames, prepared
from model.fitting.recalibration import recalibrated
from model.fitting.steps import batch_indexes, copy_indexes, joined_images, learning_rate
from model.images.frames import RESIZE, Frame, normalised
from model.images.ignored import IgnoredArea
from model.images.tiles import counted_parts, parts, whole_maps
from model.manifest import (
    BRIGHTNESS_CORRELATION,
    Backbone,
    Manifest,
    ModelBundle,
    Preprocessing,
    Training,
    student_weights,
)
from model.measures.metrics import spearman
from model.network.student import Statistics, Student
from model.teachers import load_teacher
from model.team import ALONE, Team
from model.verdict.scored import calibrated, peaks

Phase = Literal["features", "training", "calibration", "bearing", "quantisation"]

_WEIGHT_DECAY = 0.01
_TEACHER_BATCH = 16
_LOOK_EVERY = 25
"""Steps between two looks at the held-out images, where a fit may stop early."""


@dataclass(frozen=True)
class StepReport:
    """Progress within a phase. loss is nan outside of "training"; step and steps count images in "features"."""

    step: int
    steps: int
    loss: float
    phase: Phase


class Fit:
    """One fit of one product. Raises FitError, WeightsError.

    Frames must all have the options' size, or be images at full resolution where the options ask for tiles.
    """

    def __init__(
        self,
        product: str,
        train: Sequence[Frame],
        held_out: Sequence[Frame],
        options: FitOptions,
        device: torch.device | str = "cpu",
        features: FeatureCache | None = None,
        *,
        ignore: IgnoredArea | None = None,
        team: Team = ALONE,
    ) -> None:
        """features: those of another fit of the same images, options that images are prepared by, and steps; none: its
        own.

        ignore: what the options' ignore asks for, on images of these frames' size. team: of which this process is one,
        and train and held_out its shares (Team.share); all of them end with the same version.
        """
        _check_team(options, team)
        check_frames(train, held_out, options, team)
        check_area(itertools.chain(train, held_out), options, ignore)
        _check_packages(options)
        self.product = product
        self.options = options
        self.device = torch.device(device)
        self._ignore = ignore
        self._team = team
        self._cover = ignore.cover(options.size, options.tiles) if ignore else None
        with torch.random.fork_rng(devices=[]):  # a teacher that decides about light or place begins at random
            images = prepared(train, held_out, options, self._cover, self.device, team)
        self._train, self._borne, self._held_out = images.train, images.borne, images.held_out
        self._unchanged, self._exposure, self._registration = images.unchanged, images.exposure, images.registration
        self._as_read = held_out
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self._teacher = load_teacher(options.backbone, self.device)
            self._spec = self._teacher.spec
            statistics: Statistics | None = None
            if options.evidence == "statistics":
                statistics = "pooled" if options.tiles else "places"
            self._student = Student(self._spec, options.method, options.size, statistics=statistics).to(self.device)
        self._optimiser = _optimiser(self._student)
        self._precision = torch.bfloat16 if _has_bfloat16(self.device) else torch.float32
        self._train_digest = _digest(self._train, team)
        # Of many images only the copies that some step shows are made.
        shown = {one for step in range(options.steps) for one in self._shows(step)} if options.corruptions else set()
        self._shown = {one: place for place, one in enumerate(sorted(shown))}
        self.features = features
        self._step = 0
        self._loss = math.nan
        self._seconds = 0.0
        self._least_loss, self._least_loss_step = math.inf, 0  # of the held-out images
        self._held_out_features: FeatureCache | None = None

    @property
    def held_out(self) -> list[Frame]:
        """What the limits are placed by: held-out images as the network sees them, changed as is tolerated."""
        return list(self._held_out)

    @property
    def train(self) -> list[Frame]:
        """What is learned from, as the network sees it."""
        return list(self._train)

    @property
    def step(self) -> int:
        """Training steps done."""
        return self._step

    def run(self, on_step: Callable[[StepReport], None] | None = None) -> ModelBundle:
        """Fit from where it stands to the end. What on_step raises stops the fit; state() is then still good."""
        report = on_step or (lambda _: None)
        started = time.monotonic()
        cache = self.features = self.features or self._features(report)
        self._student.targets.learn(self._good(cache), self._team)
        while self._step < self.options.steps and not self._stalled():
            self._advance(cache)
            if self.options.patience and self._step % _LOOK_EVERY == 0:
                self._look()
            self._seconds += time.monotonic() - started
            started = time.monotonic()
            report(StepReport(self._step, self.options.steps, self._loss, "training"))
        bundle = self._bundle(cache, report, started)
        if self._borne:
            bundle = self._with_bearing(bundle, cache, report)
        if self.options.precision == "fp32":
            return bundle
        # Only here: it needs packages that float32 does not.
        from model.fitting.quantisation import quantised

        report(StepReport(0, 1, math.nan, "quantisation"))
        return quantised(bundle, self._train, self._held_out, self._borne)

    def state(self) -> bytes:
        """Everything that `restore` needs to go on from this step, as safetensors."""
        progress: Facts = {"step": self._step, "loss": self._loss, "seconds": self._seconds}
        progress |= {"least_loss": self._least_loss, "least_loss_step": self._least_loss_step}
        return save_checkpoint(self._student, self._optimiser, self._identity(), progress)

    def restore(self, state: bytes) -> None:
        """Go on from a state() of the same product, images and options. Raises FitError for any other."""
        progress = restore_checkpoint(state, self._student, self._optimiser, self._identity())
        self._step, self._loss = int(progress["step"]), float(progress["loss"])
        self._seconds = float(progress["seconds"])
        self._least_loss, self._least_loss_step = float(progress["least_loss"]), int(progress["least_loss_step"])

    def _identity(self) -> Facts:
        return {
            "product": self.product,
            "options": self.options.model_dump_json(),
            "train_images": self._train_digest,
            "ignore": self._ignore.digest if self._ignore else "",
            "teacher": self._teacher.weights_sha256,
        }

    def _features(self, report: Callable[[StepReport], None]) -> FeatureCache:
        """Run the teacher, once, over the training images, each of their spoiled copies and the tolerated ones."""
        frames = itertools.chain(self._train, self._spoiled(), self._borne)
        total = len(self._train) + len(self._shown) + len(self._borne)
        return self._cached(frames, total, report)

    def _cached(self, frames: Iterable[Frame], total: int, report: Callable[[StepReport], None]) -> FeatureCache:
        dtype = torch.bfloat16 if self._spec.recipe == "cosine" else torch.float32
        cache = FeatureCache(total, dtype, self.options.cache_limit_bytes, self.device)
        done = 0
        for levels in self._teacher_levels(frames):
            cache.put(done, levels)
            done += levels[0].shape[0]
            report(StepReport(done, total, math.nan, "features"))
        return cache

    def _spoiled(self) -> Iterator[Frame]:
        for copy, index in self._shown:
            rng = np.random.default_rng((self.options.seed, copy, self._team.place(index)))
            spoiled = corrupted(self._train[index], self._train, rng)
            # Of a tile nobody knows any more what of it is painted over.
            yield spoiled if self.options.tiles else as_scored(spoiled, self._cover)

    def _shows(self, step: int) -> Iterator[tuple[int, int]]:
        """Which spoiled copy of which image a step shows, for each of its images."""
        indexes = batch_indexes(self.options, len(self._train), step, self._team)
        return zip(copy_indexes(self.options, step, self._team), indexes, strict=True)

    def _good(self, cache: FeatureCache) -> Iterator[list[torch.Tensor]]:
        return cache.batches(_TEACHER_BATCH, len(self._train))

    def _changes(self, cache: FeatureCache) -> Iterator[list[torch.Tensor]]:
        """How the targets of each training image's tolerated copy differ from its own."""
        return cache.changes(self._student.targets.all, len(self._borne), _TEACHER_BATCH)

    def _teacher_levels(self, frames: Iterable[Frame]) -> Iterator[list[torch.Tensor]]:
        source = iter(frames)
        while chunk := list(itertools.islice(source, _TEACHER_BATCH)):
            with torch.no_grad():
                levels = self._teacher(normalised(chunk, self._spec.mean, self._spec.std, self.device))
            yield levels

    def _advance(self, cache: FeatureCache) -> None:
        """One training step."""
        self._student.train()
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self.options, self._spec.recipe, self._step)
        images = len(self._train)
        indexes = batch_indexes(self.options, images, self._step, self._team)
        spoiled = None
        if self.options.corruptions:
            spoiled = cache.get([images + self._shown[shown] for shown in self._shows(self._step)])
        loss = self._student.loss(cache.get(indexes), spoiled, self._joined(), precision=self._precision)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._agree()
        self._optimiser.step()
        self._loss = self._mean([float(loss.detach())])
        if not math.isfinite(self._loss):
            raise FitError(f"the loss is {self._loss} at step {self._step + 1}; lower the learning rate")
        self._step += 1

    def _agree(self) -> None:
        """Before a step of the optimiser: a team's gradients, and what its normalisations have seen, are averaged."""
        gradients = [parameter.grad for parameter in self._student.parameters() if parameter.grad is not None]
        running = [buffer for name, buffer in self._student.named_buffers() if ".running_" in name]
        self._team.average([*gradients, *running])

    def _mean(self, numbers: Sequence[float]) -> float:
        """Over all processes' numbers."""
        if self._team.alone:
            return math.fsum(numbers) / len(numbers)
        total, count = self._team.total_of(math.fsum(numbers), len(numbers))
        return total / count

    def _look(self) -> None:
        """Note the loss of the held-out good images, where it is the least so far."""
        if self._held_out_features is None:
            pieces = list(self._held_out_pieces())
            self._held_out_features = self._cached(pieces, len(pieces), lambda _: None)
        self._student.eval()
        cache = self._held_out_features
        with torch.inference_mode():
            losses = [float(self._student.loss(levels)) for levels in cache.batches(_TEACHER_BATCH, cache.count)]
        loss = self._mean(losses)
        if loss < self._least_loss:
            self._least_loss, self._least_loss_step = loss, self._step

    def _stalled(self) -> bool:
        patience = self.options.patience
        return patience is not None and self._step - self._least_loss_step >= max(patience, _LOOK_EVERY)

    def _held_out_pieces(self) -> Iterator[Frame]:
        for frame in self._held_out:
            yield from parts(frame, self.options.size, self.options.tiles, self._cover)

    def _joined(self) -> torch.Tensor | None:
        fusion = self._student.fusion
        if fusion is None or not fusion.dropout:
            return None
        return torch.tensor(joined_images(self.options, fusion.dropout, self._step, self._team), device=self.device)

    def _bundle(self, cache: FeatureCache, report: Callable[[StepReport], None], started: float) -> ModelBundle:
        """Calibrate on the held-out images and pack. The form that serves is the form that is examined."""
        options, spec = self.options, self._spec
        if self._student.statistics is not None:
            self._student.statistics.fit(
                lambda: map(self._student.targets.all, self._good(cache)),
                (lambda: self._changes(cache)) if self._borne else None,
                self._team,
            )
        served = serving_form(self._student)
        held_out = self._teacher_levels(self._held_out_pieces())
        counted = counted_parts(self._cover, options.size, options.tiles) if self._cover else None
        found = examine(served, self._good(cache), held_out, tiled=options.tiles, counted=counted, team=self._team)
        for buffer, divisor_HW in zip(self._student.divisors, found.divisors, strict=True):
            buffer.copy_(divisor_HW)
        self._student.get_buffer("importance").copy_(torch.tensor(found.level_importance))
        maps = list(whole_maps(list(found.maps), self._held_out, options.size, options.tiles, self._cover))
        maps = self._team.joined(maps)
        evidence = Evidence.learned(peaks(maps)) if self._student.statistics is not None else None
        calibration, scores = calibrated(maps, evidence, self._cover, options.target_false_reject_rate)
        report(StepReport(len(self._held_out), len(self._held_out), math.nan, "calibration"))
        weights = student_weights(self._student)
        self._seconds += time.monotonic() - started
        manifest = Manifest(
            product=self.product,
            created=datetime.now(UTC),
            method=options.method,
            backbone=Backbone(name=spec.name, weights_sha256=self._teacher.weights_sha256),
            preprocessing=Preprocessing(
                size=options.size,
                mean=spec.mean,
                std=spec.std,
                resize=RESIZE,
                tiles=options.tiles,
                reading=options.reading,
                exposure=self._exposure,
                registration=self._registration,
            ),
            ignore=self._ignore,
            calibration=calibration,
            evidence=evidence,
            tolerance=options.tolerate,
            heldout_scores=scores,
            metrics=_brightness_correlation(self._as_read, scores, self._team),
            training=Training(
                steps=self._step,
                batch=options.batch,
                seed=options.seed,
                seconds=self._seconds,
                images=int(self._team.total_of(len(self._train))[0]),
                final_loss=self._loss,
                explained_variance=found.explained_variance,
                level_importance=found.level_importance,
                level_weights=found.level_weights,
            ),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            weights_bytes=len(weights),
        )
        return ModelBundle(manifest, weights)

    def _with_bearing(
        self, bundle: ModelBundle, cache: FeatureCache, report: Callable[[StepReport], None]
    ) -> ModelBundle:
        """What it bears and costs, beside the same version had it been told to tolerate nothing."""
        report(StepReport(0, 1, math.nan, "bearing"))
        started = time.monotonic()
        student = bundle.student().to(self.device)
        if student.statistics is not None:
            student.statistics.fit(lambda: map(student.targets.all, self._good(cache)), team=self._team)
        weights = student_weights(student)
        facts = {"weights_sha256": hashlib.sha256(weights).hexdigest(), "weights_bytes": len(weights)}
        strict = ModelBundle(bundle.manifest.model_copy(update=facts), weights)
        backend = make_backend(device=str(self.device))
        strict = recalibrated(strict, backend, self._unchanged, self._team)
        bearing = self._team.first(lambda: borne(bundle, strict, self._as_read, str(self.device)))
        self._seconds += time.monotonic() - started
        report(StepReport(1, 1, math.nan, "bearing"))
        training = bundle.manifest.training.model_copy(update={"seconds": self._seconds})
        return ModelBundle(
            bundle.manifest.model_copy(update={"bearing": bearing, "training": training}), bundle.weights
        )


def _brightness_correlation(frames: Sequence[Frame], scores: Sequence[float], team: Team) -> dict[str, float]:
    """Whether held-out good images score by their brightness; nothing where all are equally bright."""
    found = spearman(team.joined([float(frame.pixels.mean()) for frame in frames]), scores)
    return {} if math.isnan(found) else {BRIGHTNESS_CORRELATION: round(found, 4)}


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 by itself: elsewhere it would be emulated, and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _optimiser(student: Student) -> torch.optim.Optimizer:
    if student.recipe == "cosine":
        return torch.optim.Adam(student.parameters(), betas=(0.5, 0.999), fused=True)
    return torch.optim.AdamW(student.parameters(), weight_decay=_WEIGHT_DECAY, fused=True)


def _digest(frames: Sequence[Frame], team: Team) -> str:
    """sha256 of the frames' pixels, in order; of a team of such digests."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame.pixels).data)
    if team.alone:
        return digest.hexdigest()
    return hashlib.sha256("".join(team.joined([digest.hexdigest()])).encode()).hexdigest()


def _check_team(options: FitOptions, team: Team) -> None:
    if options.batch % team.size or options.batch < 2 * team.size:
        raise FitError(
            f"fit.batch {options.batch} can't be shared out among {team.size} workers, two images or more to each; "
            "choose fit.workers so that it can"
        )
    if options.precision == "int8" and not team.alone:
        raise FitError("precision int8 is fitted by one worker: set fit.workers to 1, or fit with precision fp32")


def _check_packages(options: FitOptions) -> None:
    """Before minutes of training, not after."""
    missing = [name for name in ("openvino", "nncf") if not importlib.util.find_spec(name)]
    if options.precision == "int8" and missing:
        raise FitError(
            f"precision int8 needs the package {missing[0]}: pip install 'linewatch[int8]', or fit with precision fp32"
        )
