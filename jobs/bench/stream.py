"""`linewatch bench stream`: what the stream costs over the bare engine, how late events are, and how it scales.

throughput   one replica's worker, from topic to committed event with mask, beside the bare engine in the same
             process on the same photographs, in turn
latency      a camera at half of that rate: from capture to committed event
scaling      1, 2, 4, 8 workers with a simulated device: a fixed time an image and no processor
ceiling      one worker with a device that takes no time, at several sizes of image
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.table import Table

from infra.local import LocalServers
from jobs.bench.beside import write_report
from jobs.bench.stream_subject import PRODUCT, Subject
from jobs.session.progress import Screen
from model import ModelBundle
from model.bench.machine import describe_machine, versions
from model.bench.subject import drawn_photographs, prepare
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import IMAGE_CAPTURED
from pipeline.errors import ServingError
from pipeline.kafka.clients import make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.storage.store import S3Store

PHOTOGRAPHS = 32
DEFECTIVE_EVERY = 8
SERVICE_MS = 50.0
REPLICAS = (1, 2, 4, 8)
SIZES_BYTES = (1_000, 60_000, 500_000)
CEILING_BYTES = 256_000_000
ENDED = "a measured process ended; its messages are above"
Report = dict[str, Any]


@dataclass(frozen=True)
class StreamRun:
    """repeats: of stream and bare engine in turn. seconds: of a repeat, and of the camera times ten."""

    backbone: str = "efficientnet_lite0"
    threads: int = 1
    repeats: int = 5
    seconds: float = 10.0
    batch: int = 16


class SubjectProcess:
    """See jobs/bench/stream_subject.py, and jobs/plan/subject.py."""

    def __init__(
        self,
        settings: Settings,
        rank: int,
        service_ms: float | None = None,
        module: str = "jobs.bench.stream_subject",
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._send(asdict(Subject(settings.public(), rank, service_ms)))
            self.answer()
        except ServingError:
            self.close()
            raise

    def order(self, **order: Any) -> None:
        self._send(order)

    def kill(self) -> None:
        """As a machine dies: without a word."""
        self._process.kill()
        self._process.wait()

    def answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise ServingError(ENDED)
        return json.loads(line)

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def _send(self, told: object) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ServingError(ENDED) from None

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def bench_stream(run: StreamRun, json_file: Path | None, command: str, screen: Screen) -> Report:
    """Measure on embedded servers of its own, write the report and show it."""
    report: Report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": versions(),
        "command": command,
        **asdict(run),
    }
    with TemporaryDirectory(prefix="linewatch-bench-") as folder, ExitStack() as stack:
        step = stack.enter_context(screen.step("Measuring the stream"))
        servers = stack.enter_context(LocalServers.start(Path(folder, "servers"), say=step.say))
        report["servers"] = servers.describe()
        jpegs = drawn_photographs(PHOTOGRAPHS, defective_every=DEFECTIVE_EVERY)
        bundle = prepare(
            run.backbone, 256, jpegs, steps=50, on_step=lambda one: step.say(f"fitting ({one.phase})")
        ).bundle
        settings = _settings(servers, run)
        publish(bundle, settings)
        step.say("throughput")
        report |= _throughput(settings, run, jpegs, step.advance)
        step.say("scaling with a simulated device")
        report["simulated_device"] = _scaling(settings, jpegs[0], run)
        step.say("the ceiling of one process")
        report["one_process"] = _ceiling(settings)
    write_report(report, json_file, screen)
    _show(report, screen)
    return report


def publish(bundle: ModelBundle, settings: Settings) -> None:
    """Let it serve the measured product."""
    store = S3Store(settings.s3)
    store.ensure_bucket()
    version = f"20260101T000000Z-{bundle.manifest.weights_sha256[:8]}"
    registry = Registry(store)
    registry.publish(
        bundle.stamped(version=version, parent=None, dataset_digest="", code_version="bench", heldout_sha256=[])
    )
    registry.promote(PRODUCT, version, None)


def _settings(servers: LocalServers, run: StreamRun) -> Settings:
    os.environ.update(servers.environment())
    return Settings.from_values(
        {
            "stream": {"batch_images": run.batch},
            "engine": {"threads": run.threads, "device": "cpu"},
            "topics": {"partitions": 2 * REPLICAS[-1]},
        }
    )


def fresh(settings: Settings) -> Settings:
    """The same with topics and a group of their own."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    values = settings.public()
    values["topics"]["prefix"], values["kafka"]["group"] = name, name
    made = Settings.received(values)
    ensure_topics(made)
    return made


def produce(settings: Settings, values: Sequence[bytes], count: int, per_s: float = 0.0) -> None:
    """So many captured images, evenly over the partitions, at once or at a rate."""
    partitions = settings.topics.partitions
    with closing(make_producer(settings, linger_ms=0)) as producer:
        begun = time.monotonic()
        for number in range(count):
            if per_s:
                time.sleep(max(0.0, begun + number / per_s - time.monotonic()))
            camera = f"/bench/cam{number % partitions}"
            captured = Envelope(
                f"b-{number:06d}", camera, IMAGE_CAPTURED, PRODUCT, datetime.now(UTC), "image/jpeg", None
            )
            producer.send(
                settings.topics.images, values[number % len(values)], camera.encode(), list(captured.headers()),
                partition=number % partitions,
            )  # fmt: skip
        producer.flush(timeout=60)


def steady(commits: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Images per second of all workers together, while each of them was at work."""
    begun = max(one[0]["at"] for one in commits)
    ended = min(one[-1]["at"] for one in commits)
    images = sum(commit["images"] for one in commits for commit in one if begun < commit["at"] <= ended)
    return images / (ended - begun) if ended > begun else 0.0


def _throughput(
    settings: Settings, run: StreamRun, jpegs: Sequence[bytes], on_progress: Callable[[int, int], None]
) -> Report:
    encoded = [base64.b64encode(one).decode() for one in jpegs]
    bare, stream, batch_s, transactions_s = [], [], [], []
    # Two processes with the same engine, of which one works at a time: each stream repeat has a group of its own.
    with closing(SubjectProcess(settings, 0)) as engine:
        engine.order(bare=encoded, seconds=1.0)
        images = max(4 * run.batch, round(engine.answer()["images_per_s"] * run.seconds))
        for number in range(run.repeats):
            engine.order(bare=encoded, seconds=run.seconds)
            told = engine.answer()
            bare.append(told["images_per_s"])
            batch_s.append(told["batch_s"])
            repeat = fresh(settings)
            produce(repeat, jpegs, images)
            with closing(SubjectProcess(repeat, 0)) as replica:
                replica.order(stream=images)
                commits = replica.answer()
            stream.append(steady([commits]))
            transactions_s += [commit["seconds"] for commit in commits]
            on_progress(number + 1, run.repeats)
    half = statistics.median(stream) / 2
    paced = fresh(settings)
    with closing(SubjectProcess(paced, 0)) as replica:
        count = round(half * run.seconds * 3)
        replica.order(stream=count)
        time.sleep(2)  # it has joined
        produce(paced, jpegs, count, per_s=half)
        ages = [age for commit in replica.answer() for age in commit["ages_s"]]
    one_batch, one_transaction = statistics.median(batch_s), statistics.median(transactions_s)
    p50, p99 = (float(np.quantile(ages, q)) for q in (0.5, 0.99))
    return {
        "images_per_s": {"bare_engine": _rates(bare), "stream": _rates(stream)},
        "ratio_to_bare_engine": round(statistics.median(s / b for s, b in zip(stream, bare, strict=True)), 3),
        "batch_s": round(one_batch, 4),
        "transaction_s": round(one_transaction, 4),
        "half_load": {
            "images_per_s": round(half, 2),
            "images": len(ages),
            "p50_s": round(p50, 4),
            "p99_s": round(p99, 4),
        },
        "p99_ratio_at_half_load": round(p99 / (3 * one_batch + one_transaction), 3),
    }


def _scaling(settings: Settings, jpeg: bytes, run: StreamRun) -> list[Report]:
    """Rates of 1, 2, 4, 8 workers; efficiency 1: as many images as the devices alone would do."""
    found = []
    for replicas in REPLICAS:
        repeat = fresh(settings)
        images = round(run.seconds * 1000 / SERVICE_MS) * replicas
        produce(repeat, [jpeg], images)
        with ExitStack() as stack:
            workers = [
                stack.enter_context(closing(SubjectProcess(repeat, rank, SERVICE_MS))) for rank in range(replicas)
            ]
            for worker in workers:
                # Partitions come in equal shares, so every worker gets its part; the last images may be a straggler's.
                worker.order(stream=round(0.7 * images / replicas))
            rate = steady([worker.answer() for worker in workers])
        ideal = replicas * 1000 / SERVICE_MS
        found.append({"replicas": replicas, "images_per_s": round(rate, 2), "efficiency": round(rate / ideal, 3)})
    return found


def _ceiling(settings: Settings) -> list[Report]:
    found = []
    for size in SIZES_BYTES:
        repeat = fresh(settings)
        images = min(6_000, CEILING_BYTES // size)
        produce(repeat, [bytes(size)], images)
        with closing(SubjectProcess(repeat, 0, 0.0)) as worker:
            worker.order(stream=images)
            rate = steady([worker.answer()])
        found.append({"image_bytes": size, "images_per_s": round(rate, 1), "mb_per_s": round(rate * size / 1e6, 2)})
    return found


def _rates(repeats: Sequence[float]) -> Report:
    return {"median": round(statistics.median(repeats), 3), "repeats": [round(one, 3) for one in repeats]}


def _show(report: Report, screen: Screen) -> None:
    for title, rows in (("simulated device", report["simulated_device"]), ("one process", report["one_process"])):
        table = Table(title=title, title_justify="left")
        for column in rows[0]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        screen.console.print(table)
    rates = report["images_per_s"]
    screen.say(f"bare engine {rates['bare_engine']['median']} images/s, stream {rates['stream']['median']} images/s")
    screen.say(f"ratio_to_bare_engine: {report['ratio_to_bare_engine']:.2f}")
    half = report["half_load"]
    screen.say(f"half load: p50 {1000 * half['p50_s']:.0f} ms, p99 {1000 * half['p99_s']:.0f} ms")
    screen.say(f"p99_ratio_at_half_load: {report['p99_ratio_at_half_load']:.2f} (of three batches and a transaction)")
