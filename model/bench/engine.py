"""The engine's rate: bare, from bytes to an event-ready mask, and with a hundred products in one stream."""

from __future__ import annotations

import importlib.util
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.bench.interleaved import OnRepeat, Rates, Run, interleaved, ratio
from model.bench.machine import resident_bytes
from model.bench.subject import Subject
from model.engine.backend import Backend
from model.engine.choice import BackendName, make_backend
from model.engine.engine import Engine
from model.engine.precision import MOST_SHIFT, TRIAL_IMAGES, shift
from model.fitting.options import MOST_SCORE_SHIFT
from model.images.frames import Frame, read_frame
from model.manifest import ModelBundle
from model.maps.resampling import upsample
from model.verdict.masks import cut
from model.verdict.pictures import encode_mask_png
from model.verdict.scored import Scored

PRODUCTS = 100
MOST_STUDENT_BYTES = 8 << 30
"""A hundred students larger than this are not loaded for a measurement."""

STAGES = 3
"""Of the stream's worker, each at another batch."""
AGREEING = 16
"""Images whose scores are compared."""
QUEUED = 8
"""Batches in a call of the engine, where a queue is measured."""

Precision = Literal["fp32", "fp16", "int8"]

OfBatch = Callable[[int], Run]
"""A mode of scoring for a batch size."""


@dataclass(frozen=True)
class EngineOptions:
    """seconds: of one repeat of one mode. threads: for every mode alike. device: cpu, cuda or rehearsal (make_backend).

    replicas: so many processes are measured side by side, each count by itself; none are measured without. products:
    of the stream of many.
    """

    threads: int
    repeats: int = 7
    seconds: float = 1.0
    device: str = "cpu"
    replicas: tuple[int, ...] = ()
    products: int = PRODUCTS

    @property
    def torch_device(self) -> str:
        """Where what is not ours computes: a fit, a plain product."""
        return "cpu" if self.device == "rehearsal" else self.device


class OurMode:
    """One backend under the engine, and the model that it gets.

    backend_name: by which another process makes the same. accepted: whether int8 keeps its bound; none where that is
    no question.
    """

    def __init__(
        self,
        name: str,
        backend_name: BackendName,
        backend: Backend,
        bundle: ModelBundle,
        precision: Precision = "fp32",
        accepted: bool | None = None,
    ) -> None:
        self.name = name
        self.backend_name = backend_name
        self.backend = backend
        self.bundle = bundle
        self.precision = precision
        self.accepted = accepted

    def engine(self, batch: int, threads: int) -> Engine:
        """A fresh engine that gives the mode's model for every key."""
        return Engine(
            lambda _: self.bundle,
            memory_limit_bytes=MOST_STUDENT_BYTES,
            batch_size=batch,
            threads=threads,
            backend=self.backend,
        )


def our_modes(subject: Subject, options: EngineOptions) -> list[OurMode]:
    """Every backend that this machine can run; torch is the reference and comes first."""
    modes = [OurMode("ours_torch", "torch", make_backend("torch", options.device), subject.bundle)]
    if options.device != "cpu":
        modes.append(OurMode("ours_torch_fp16", "auto", make_backend("auto", options.device), subject.bundle, "fp16"))
    if options.device == "cpu" and importlib.util.find_spec("openvino"):
        backend = make_backend("openvino", "cpu", options.threads)
        modes.append(OurMode("ours_openvino", "openvino", backend, subject.bundle))
        if subject.int8 and subject.int8.manifest.quantisation:
            shift = subject.int8.manifest.quantisation.score_shift_sd
            kept = shift is not None and shift <= MOST_SCORE_SHIFT
            modes.append(OurMode("ours_openvino_int8", "openvino", backend, subject.int8, "int8", kept))
    return modes


def measure_scoring(
    subject: Subject,
    modes: Sequence[OurMode],
    peers: Mapping[str, OfBatch],
    batch: int,
    options: EngineOptions,
    on_repeat: OnRepeat | None = None,
) -> dict[str, Rates]:
    """From decoded uint8 frames to anomaly maps and scores: ours, the peer's, and "map_to_image_size" alone.

    The engine's map has a quarter of the image's side; what bringing it to the full side would add is measured by
    itself.
    """
    runs: dict[str, Run] = {
        mode.name: scoring(mode.engine(batch, options.threads), subject.frames, batch) for mode in modes
    }
    runs |= {name: of_batch(batch) for name, of_batch in peers.items()}
    runs["map_to_image_size"] = _resizing(modes[0].engine(batch, options.threads), subject, batch)
    return interleaved(runs, batch, repeats=options.repeats, seconds=options.seconds, on_repeat=on_repeat)


def measure_queue(
    subject: Subject, mode: OurMode, batch: int, options: EngineOptions, on_repeat: OnRepeat | None = None
) -> dict[str, Rates]:
    """One batch a call, which is waited for, against calls of several: there a GPU never waits for the host."""
    engine = mode.engine(batch, options.threads)
    engine.warm("bench")
    many = scoring(engine, subject.frames, QUEUED * batch)

    def queued(batches: int) -> float:
        calls = max(1, batches // QUEUED)
        return many(calls) * batches / (calls * QUEUED)

    runs = {"a_batch_a_call": scoring(engine, subject.frames, batch), "queued": queued}
    return interleaved(runs, batch, repeats=options.repeats, seconds=options.seconds, on_repeat=on_repeat)


def measure_agreement(subject: Subject, modes: Sequence[OurMode], options: EngineOptions) -> dict[str, object]:
    """By how much the scores of each mode that rounds nothing to int8 differ from PyTorch's in float32 on the CPU."""
    frames = subject.frames[:AGREEING]

    keys = ["bench"] * len(frames)

    def scores(mode: OurMode) -> tuple[list[float], dict[str, object]]:
        engine = mode.engine(len(frames), options.threads)
        for _ in range(2):  # the first images of a product get the exact score
            engine.score(frames, keys)
        return [one.score for one in engine.score(frames, keys)], mode.backend.describe()

    exact, _ = scores(OurMode("exact", "torch", make_backend("torch", "cpu"), subject.bundle))
    shifts, described = {}, {}
    for mode in modes:
        if mode.precision != "int8":
            found, described[mode.name] = scores(mode)
            shifts[mode.name] = float(f"{shift(found, exact):.3g}")
    return {"largest_shift_of_a_score": shifts, "bound": MOST_SHIFT, "described": described}


def measure_bytes_to_mask(
    subject: Subject, mode: OurMode, batch: int, options: EngineOptions, on_repeat: OnRepeat | None = None
) -> dict[str, object]:
    """JPEG decoding, scoring, cutting and PNG encoding against scoring alone, interleaved."""
    engine = mode.engine(batch, options.threads)
    with ThreadPoolExecutor(options.threads) as pool:
        runs = {
            "bare_engine": scoring(engine, subject.frames, batch),
            "bytes_to_mask": inspecting(engine, subject, batch, pool),
        }
        rates = interleaved(runs, batch, repeats=options.repeats, seconds=options.seconds, on_repeat=on_repeat)
    flagged = sum(result.verdict != "OK" for result in engine.score(subject.frames, ["bench"] * len(subject.frames)))
    return {
        "mode": mode.name,
        "batch": batch,
        "jpeg_side_px": subject.frames[0].width,
        "jpeg_bytes_mean": round(sum(map(len, subject.jpegs)) / len(subject.jpegs)),
        "images_flagged": round(flagged / len(subject.frames), 3),
        "images_per_s": {name: one.as_json() for name, one in rates.items()},
        "ratio_bytes_to_mask": ratio(rates["bytes_to_mask"], rates["bare_engine"]),
    }


def measure_hundred_products(
    subject: Subject, mode: OurMode, batch: int, options: EngineOptions, on_repeat: OnRepeat | None = None
) -> dict[str, object]:
    """A stream in which every image belongs to any of a hundred products, against one product; and its memory."""
    engine = mode.engine(batch, options.threads)
    one = scoring(engine, subject.frames, batch)
    one(2)
    before, student = resident_bytes(), engine.memory_bytes
    products = options.products
    if student * products > MOST_STUDENT_BYTES:
        return {"skipped": f"{products} students of {student:,} bytes are more than {MOST_STUDENT_BYTES:,}"}
    keys = [f"product-{number}" for number in range(products)]
    for key in keys:
        engine.manifest(key)
    rng = np.random.default_rng(0)
    order = [place for _ in range(batch) for place in rng.permutation(products)]
    hundred = scoring(engine, subject.frames, batch, [keys[place] for place in order])
    # Every student has run before memory is looked at, and its trial is over where it has one.
    hundred((1 if options.device == "cpu" else TRIAL_IMAGES) * math.ceil(products / batch))
    loaded = resident_bytes()
    runs = {"one_product": one, "hundred_products": hundred}
    rates = interleaved(runs, batch, repeats=options.repeats, seconds=options.seconds, on_repeat=on_repeat)
    return {
        "mode": mode.name,
        "batch": batch,
        "memory_limit_bytes": MOST_STUDENT_BYTES,
        "students_bytes": engine.memory_bytes,
        "resident_bytes_one_product": before,
        "resident_bytes_hundred_loaded": loaded,
        "resident_bytes_after_stream": resident_bytes(),
        "images_per_s": {name: one.as_json() for name, one in rates.items()},
        "ratio_hundred_products": ratio(rates["hundred_products"], rates["one_product"]),
    }


def gflop_per_image(subject: Subject) -> float:
    """Convolutions and matrix products of one image, 2 for a multiply-add, counted in torch on the CPU."""
    engine = OurMode("counted", "torch", make_backend("torch", "cpu"), subject.bundle).engine(
        1, torch.get_num_threads()
    )
    engine.warm("bench")
    with FlopCounterMode(display=False) as counter:
        engine.score(subject.frames[:1], ["bench"])
    return round(float(counter.get_total_flops()) / 1e9, 3)


def peak_tflop_per_s(precision: Precision, options: EngineOptions) -> float | None:
    """What the device reaches in a large matrix product, which no network exceeds: the best of the repeats.

    None for int8, for which torch has no such product.
    """
    if precision == "int8":
        return None
    on_gpu = options.device.startswith("cuda")
    side = 8192 if on_gpu else 1024
    dtype = torch.float16 if precision == "fp16" else torch.float32
    one_NN = torch.randn(side, side, device=options.torch_device, dtype=dtype)

    def seconds() -> float:
        begun = time.perf_counter()
        product_NN = one_NN @ one_NN
        product_NN[0, 0].item()  # waits for the device
        return time.perf_counter() - begun

    return round(2e-12 * side**3 / min(seconds() for _ in range(options.repeats + 3)), 4)


def scoring(engine: Engine, frames: Sequence[Frame], batch: int, keys: Sequence[str] = ("bench",)) -> Run:
    """Score batches of the frames in turn, with the keys in turn."""

    def run(batches: int) -> float:
        begun = time.perf_counter()
        for number in range(batches):
            places = range(number * batch, (number + 1) * batch)
            engine.score([frames[place % len(frames)] for place in places], [keys[p % len(keys)] for p in places])
        return time.perf_counter() - begun

    return run


def inspecting(engine: Engine, subject: Subject, batch: int, pool: ThreadPoolExecutor) -> Run:
    """As the stream's worker does it: a batch is decoded while the one before is scored and the one before that cut."""
    size = subject.frames[0].size

    def decoded(number: int) -> list[Frame]:
        places = range(number * batch, (number + 1) * batch)
        return list(pool.map(lambda place: read_frame(subject.jpegs[place % len(subject.jpegs)], size), places))

    def cut_of(scored: Future[list[Scored]]) -> None:
        list(pool.map(lambda result: encode_mask_png(cut(result).mask), scored.result()))

    def run(batches: int) -> float:
        begun = time.perf_counter()
        under_way: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1) as scoring_thread, ThreadPoolExecutor(1) as cutting_thread:
            for number in range(batches):
                scored = scoring_thread.submit(engine.score, decoded(number), ["bench"] * batch)
                under_way.append(cutting_thread.submit(cut_of, scored))
                if len(under_way) == STAGES:
                    under_way.popleft().result()
            for last in under_way:
                last.result()
        return time.perf_counter() - begun

    return run


def _resizing(engine: Engine, subject: Subject, batch: int) -> Run:
    """Bring the maps of a batch to the size of the model's input."""
    frames = subject.frames[:batch]
    maps = [result.anomaly_map for result in engine.score(frames, ["bench"] * len(frames))]
    size = subject.frames[0].size

    def run(batches: int) -> float:
        begun = time.perf_counter()
        for _ in range(batches):
            for row in range(batch):
                upsample(maps[row % len(maps)], size, size)
        return time.perf_counter() - begun

    return run
