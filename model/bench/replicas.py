"""Several replicas on one GPU: processes that score the same stream side by side, as Serve's fractions place them."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty

from model.bench.engine import EngineOptions, OurMode, inspecting
from model.bench.random_teacher import random_teacher
from model.bench.subject import Subject
from model.engine.choice import BackendName
from model.engine.engine import Engine
from model.errors import ModelError
from model.images.frames import read_frame
from model.manifest import ModelBundle

READY_S = 180
"""A process imports torch, reads weights and warms up within this."""


def measure_replicas(
    subject: Subject, mode: OurMode, batch: int, counts: tuple[int, ...], options: EngineOptions
) -> dict[str, object]:
    """Images/s of so many processes together, from JPEG bytes to masks; each has its part of the threads."""
    together: dict[str, float | str] = {}
    for count in counts:
        try:
            together[str(count)] = round(_side_by_side(count, subject, mode, batch, options), 1)
        except ModelError as error:
            together[str(count)] = str(error)
    return {"mode": mode.name, "batch": batch, "threads": options.threads, "images_per_s_of_replicas": together}


def _side_by_side(count: int, subject: Subject, mode: OurMode, batch: int, options: EngineOptions) -> float:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="linewatch-bench-") as folder:
        Path(folder, "manifest.json").write_bytes(mode.bundle.manifest_json())
        Path(folder, "weights").write_bytes(mode.bundle.weights)
        for number, data in enumerate(subject.jpegs):
            Path(folder, f"{number:04d}.jpg").write_bytes(data)
        ready, rates = context.Barrier(count), context.Queue()
        threads = max(1, options.threads // count)
        given = (folder, mode.backend_name, options.device, batch, threads, options.seconds * options.repeats)
        processes = [context.Process(target=_replica, args=(*given, ready, rates), daemon=True) for _ in range(count)]
        for process in processes:
            process.start()
        try:
            found = _each(rates, processes, READY_S + options.seconds * options.repeats)
        finally:
            for process in processes:
                process.join(10)
                if process.is_alive():
                    process.kill()
    return count * statistics.fmean(found)


def _each(rates: Queue[float], processes: Sequence[SpawnProcess], limit_s: float) -> list[float]:
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < len(processes):
        try:
            found.append(rates.get(timeout=0.2))
        except Empty:
            ended = [process.exitcode for process in processes if process.exitcode]
            if ended or time.perf_counter() - begun > limit_s:
                why = f"one ended with status {ended[0]}" if ended else f"nothing was heard in {limit_s:.0f} s"
                raise ModelError(f"failed: {why}") from None
    return found


def _replica(
    folder: str,
    backend: BackendName,
    device: str,
    batch: int,
    threads: int,
    seconds: float,
    ready: Barrier,
    rates: Queue[float],
) -> None:
    bundle = ModelBundle.open(Path(folder, "manifest.json").read_bytes(), Path(folder, "weights").read_bytes())
    jpegs = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    size = bundle.manifest.preprocessing.size
    with tempfile.TemporaryDirectory(prefix="linewatch-bench-") as own, random_teacher(
        bundle.manifest.backbone.name, Path(own)
    ), ThreadPoolExecutor(threads) as pool:  # fmt: skip
        engine = Engine(lambda _: bundle, device=device, backend=backend, batch_size=batch, threads=threads)
        engine.warm("bench")
        frames = [read_frame(data, size) for data in jpegs]
        run = inspecting(engine, Subject(bundle, None, jpegs, frames), batch, pool)
        run(2)
        ready.wait(READY_S)
        begun, images = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            run(4)
            images += 4 * batch
        rates.put(images / (time.perf_counter() - begun))
