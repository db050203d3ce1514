"""The two runs behind `bench engine` and `bench train`, from options to the report that is written as JSON.

A peer takes part by implementing `Peer`; without one, linewatch is measured alone.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from model.bench.engine import (
    EngineOptions,
    OfBatch,
    OurMode,
    gflop_per_image,
    measure_agreement,
    measure_bytes_to_mask,
    measure_hundred_products,
    measure_queue,
    measure_scoring,
    our_modes,
    peak_tflop_per_s,
)
from model.bench.interleaved import Rates, ratio
from model.bench.machine import describe_machine, versions
from model.bench.nvjpeg import measure_nvjpeg
from model.bench.peaks import peak_of
from model.bench.random_teacher import random_teacher
from model.bench.replicas import measure_replicas
from model.bench.stages import measure_stages
from model.bench.subject import DEFECTIVE_EVERY, Subject, drawn_photographs, prepare
from model.bench.train import StepTimes, measure_fit
from model.engine.torch_backend import TorchBackend
from model.fitting.options import FitOptions
from model.fitting.steps import batch_indexes
from model.images.frames import Frame, read_frame

Report = dict[str, Any]
OnProgress = Callable[[str, int, int], None]
"""What is being measured, done, of how many."""

ENGINE_IMAGES = 32
FIT_STEPS = 50
# Our mode and the peer's that a ratio compares: the best accepted of ours, or one of a precision.
RATIOS = {
    "ratio_to_peer_torch": ("best", "peer_torch"),
    "ratio_to_peer_openvino_fp32": ("fp32", "peer_openvino_fp32"),
    "ratio_to_peer_openvino_default": ("best", "peer_openvino_default"),
    "ratio_to_peer_openvino_int8": ("best", "peer_openvino_int8"),
}


class Peer(Protocol):
    """Another detector under the same clock, for the same images."""

    def load(self, backbone: str, frames: Sequence[Frame], weights: Path | None, threads: int) -> None:
        """weights: of the random teacher, so that both sides run the same network."""
        ...

    def modes(self, batches: Sequence[int], on_progress: OnProgress) -> Mapping[str, OfBatch]:
        """Its ways of scoring; making them may take minutes."""
        ...

    def begin_training(self) -> None: ...

    def step(self, rows: Sequence[int]) -> tuple[float, float]:
        """One training step on these frames: its seconds and its loss."""
        ...

    def describe(self) -> dict[str, object]: ...


@dataclass(frozen=True)
class EngineRun:
    """photographs: none draws them. batches: the ratios of the report are the smallest over them.

    fit_steps: of the model that scores; none takes FIT_STEPS, or one on random weights, for speed is the same.
    """

    backbone: str = "efficientnet_lite0"
    size: int = 256
    batches: tuple[int, ...] = (1, 16)
    photographs: Sequence[bytes] | None = None
    options: EngineOptions = field(default_factory=lambda: EngineOptions(threads=1))
    fit_steps: int | None = None


@dataclass(frozen=True)
class TrainRun:
    """fit: what is fitted; images: how many are drawn where no photographs are given."""

    fit: FitOptions
    images: int = 128
    photographs: Sequence[bytes] | None = None
    threads: int = 1
    device: str = "cpu"


def run_engine(run: EngineRun, peer: Peer | None = None, on_progress: OnProgress = lambda *_: None) -> Report:
    """Rates and ratios of scoring. Raises ModelError, and what the peer raises."""
    options = run.options
    torch.set_num_threads(options.threads)
    report = _head(run.backbone, run.size, options.threads, options.device)
    report |= {"repeats": options.repeats, "seconds_a_repeat": options.seconds}
    with tempfile.TemporaryDirectory(prefix="linewatch-bench-") as folder, random_teacher(
        run.backbone, Path(folder)
    ) as weights:  # fmt: skip
        on_progress("drawing photographs", 0, 1)
        jpegs = run.photographs or drawn_photographs(ENGINE_IMAGES, defective_every=DEFECTIVE_EVERY)
        steps = run.fit_steps or (FIT_STEPS if weights is None else 1)
        subject = prepare(
            run.backbone, run.size, jpegs, steps=steps, device=options.torch_device,
            on_step=lambda step: on_progress(f"fitting a model ({step.phase})", step.step, step.steps),
        )  # fmt: skip
        report["gflop_per_image"] = gflop_per_image(subject)
        report["teacher_weights"] = "random" if weights else "published"
        modes = our_modes(subject, options)
        peers: Mapping[str, OfBatch] = {}
        if peer:
            peer.load(run.backbone, subject.frames, weights, options.threads)
            peers = peer.modes(run.batches, on_progress)
            report["peer"] = peer.describe()
        report["batches"] = {}
        for batch in run.batches:
            say = partial(on_progress, f"scoring, batch {batch}")
            rates = measure_scoring(subject, modes, peers, batch, options, say)
            report["batches"][str(batch)] = _scoring_report(rates, modes, report["gflop_per_image"])
        report |= _least_ratios(report["batches"].values())
        best = next(mode for mode in modes if mode.name == report["batches"][str(run.batches[-1])]["best_mode"])
        batch = max(run.batches)
        peak = peak_tflop_per_s(best.precision, options)
        rate = report["batches"][str(run.batches[-1])]["tflop_per_s"]
        report |= {"peak_tflop_per_s": peak, "share_of_peak": peak and round(rate / peak, 3)}
        on_progress("stages", 0, 1)
        in_torch = [mode for mode in modes if isinstance(mode.backend, TorchBackend)]
        report["stages"] = measure_stages(subject, in_torch[-1], batch, options)
        report["agreement"] = measure_agreement(subject, modes, options)
        if options.device != "cpu":
            report |= _of_a_gpu(subject, best, batch, options, report["gflop_per_image"], on_progress)
        if options.replicas:
            on_progress("replicas side by side", 0, 1)
            report["replicas"] = measure_replicas(subject, best, batch, options.replicas, options)
        report["bytes_to_mask"] = measure_bytes_to_mask(
            subject, best, batch, options, partial(on_progress, "from bytes to masks")
        )
        report["ratio_bytes_to_mask"] = report["bytes_to_mask"]["ratio_bytes_to_mask"]
        report["hundred_products"] = measure_hundred_products(
            subject, best, batch, options, partial(on_progress, "a hundred products")
        )
        report["ratio_hundred_products"] = report["hundred_products"].get("ratio_hundred_products")
    return report


def run_train(run: TrainRun, peer: Peer | None = None, on_progress: OnProgress = lambda *_: None) -> Report:
    """Seconds and losses of a fit; the peer takes a step after each of ours, on the same images."""
    torch.set_num_threads(run.threads)
    fit = run.fit
    report = _head(fit.backbone, fit.size, run.threads, run.device)
    with tempfile.TemporaryDirectory(prefix="linewatch-bench-") as folder, random_teacher(
        fit.backbone, Path(folder)
    ) as weights:  # fmt: skip
        on_progress("drawing photographs", 0, 1)
        frames = [read_frame(data, fit.size) for data in run.photographs or drawn_photographs(run.images)]
        report |= {
            "teacher_weights": "random" if weights else "published",
            "images": len(frames),
            "steps": fit.steps,
            "batch": fit.batch,
            "epochs": round(fit.steps * fit.batch / len(frames), 2),
            "method": fit.method,
            "corruptions": fit.corruptions,
        }
        theirs = StepTimes()
        if peer:
            peer.load(fit.backbone, frames, weights, run.threads)
            peer.begin_training()
            report["peer"] = peer.describe()

        def after_step(step: int) -> None:
            if peer:
                seconds, loss = peer.step(batch_indexes(fit, len(frames), step - 1))
                theirs.steps_s.append(seconds)
                theirs.losses.append(loss)
            on_progress("training", step, fit.steps)

        ours = measure_fit(frames, fit, run.device, after_step, partial(on_progress, "teacher features"))
    report["ours"] = ours.as_json()
    if peer:
        report["peer"] |= theirs.as_json()
        report["ratio_to_peer"] = round(sum(theirs.steps_s) / (ours.features_s + sum(ours.steps_s)), 3)
        report["ratio_of_a_step_alone"] = round(
            statistics.median(t / o for t, o in zip(theirs.steps_s, ours.steps_s, strict=True)), 3
        )
    return report


def _head(backbone: str, size: int, threads: int, device: str) -> Report:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": versions(),
        "backbone": backbone,
        "size": size,
        "threads": threads,
        "device": device,
    }


def _of_a_gpu(
    subject: Subject, best: OurMode, batch: int, options: EngineOptions, gflop: float, on_progress: OnProgress
) -> Report:
    """A queue's rate and its share of what the card can do; nvJPEG."""
    queue = measure_queue(subject, best, batch, options, partial(on_progress, "a queue"))
    tflop_per_s = round(queue["queued"].median * gflop / 1e3, 4)
    published = peak_of(options.device)
    peak = published.get("tflop_per_s")
    rates: Report = {name: rates.as_json() for name, rates in queue.items()}
    return {
        "queued": {**rates, "batch": batch, "tflop_per_s": tflop_per_s},
        "published_peak": published,
        "share_of_published_peak": round(tflop_per_s / peak, 4) if isinstance(peak, float) else None,
        "nvjpeg": measure_nvjpeg(subject, batch, options),
    }


def _scoring_report(rates: Mapping[str, Rates], modes: Sequence[OurMode], gflop: float) -> Report:
    ours = {mode.name: rates[mode.name] for mode in modes if mode.accepted is not False}
    best = max(ours, key=lambda name: ours[name].median)
    plain = {mode.name for mode in modes if mode.precision == "fp32"}
    fp32 = max(plain, key=lambda name: rates[name].median)
    report: Report = {
        "images_per_s": {name: one.as_json() for name, one in rates.items()},
        "best_mode": best,
        "tflop_per_s": round(rates[best].median * gflop / 1e3, 4),
    }
    for name, (which, other) in RATIOS.items():
        if other in rates:
            mode = best if which == "best" else fp32
            report[name] = ratio(rates[mode], rates[other])
            report[f"{name}_map_at_image_size"] = ratio(_both(rates[mode], rates["map_to_image_size"]), rates[other])
    return report


def _both(one: Rates, other: Rates) -> Rates:
    """One after the other for each image."""
    pairs = zip(one.repeats, other.repeats, strict=True)
    return Rates(tuple(1 / (1 / first + 1 / second) for first, second in pairs))


def _least_ratios(batches: Sequence[Report] | Any) -> Report:
    least: Report = {}
    for batch in batches:
        for name, value in batch.items():
            if name.startswith("ratio_"):
                least[name] = min(value, least.get(name, value))
    return least
