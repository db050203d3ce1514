"""A plant of its own to measure on: embedded servers, a fitted product, cameras, and replicas' real workers."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import numpy as np

from infra.local import LocalServers
from jobs.bench.stream import DEFECTIVE_EVERY, ENDED, PHOTOGRAPHS, SubjectProcess, fresh, produce, publish
from jobs.bench.stream_subject import PRODUCT
from jobs.plan.arrivals import camera_names
from model.bench.subject import Subject, drawn_photographs, prepare
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import IMAGE_CAPTURED
from pipeline.errors import ServingError
from pipeline.kafka.clients import make_producer
from pipeline.settings import Settings

FIT_STEPS = 10
PARTITIONS = 8
SETTLE_S = 8.0
"""Until a group of several shares out its partitions no more."""
Say = Callable[[str], None]
Captures = Sequence[tuple[float, int]]
"""Seconds, and the number of a camera."""


@dataclass(frozen=True, eq=False)
class Committed:
    """Of each image: when it was captured and when its transaction ended, of one clock, and its partition."""

    captured_s: np.ndarray
    finished_s: np.ndarray
    partition: np.ndarray

    def arrivals(self, partitions: int) -> list[np.ndarray]:
        """For the simulation: seconds from the first capture on."""
        begun = self.captured_s.min()
        return [np.sort(self.captured_s[self.partition == number]) - begun for number in range(partitions)]


@dataclass(frozen=True, eq=False)
class Plant:
    settings: Settings
    product: Subject
    folder: Path

    @contextmanager
    def replica(self, rank: int = 0, service_ms: float | None = None) -> Iterator[SubjectProcess]:
        """service_ms: of a simulated device that takes so long for an image and no processor."""
        with closing(SubjectProcess(self.settings, rank, service_ms, "jobs.plan.subject")) as process:
            yield process

    def fresh(self, **stream: int) -> Settings:
        """Topics and a group of their own."""
        values = self.settings.public()
        values["stream"] |= stream
        return fresh(Settings.received(values))

    def backlog(
        self, replica: SubjectProcess, settings: Settings, images: int, values: Sequence[bytes] | None = None
    ) -> tuple[Committed, dict[str, Any]]:
        """Images that lie there before the replica begins, worked off as fast as it can. values: no photographs."""
        produce(settings, values or self.product.jpegs, images)
        log = self.join(replica, settings, images)
        told = replica.answer()
        return read_log([log]), told

    def paced(
        self, replica: SubjectProcess, settings: Settings, captures: Captures
    ) -> tuple[Committed, dict[str, Any]]:
        """Cameras that send at these moments while the replica is there."""
        log = self.join(replica, settings, len(captures))
        self.send(settings, captures)
        told = replica.answer()
        return read_log([log]), told

    def with_a_death(
        self, replicas: Sequence[SubjectProcess], settings: Settings, captures: Captures, at_s: float
    ) -> Committed:
        """The same with several replicas, the last of which is killed with -9 at a moment and has no successor."""
        logs = [self.join(one, settings, len(captures)) for one in replicas]
        time.sleep(SETTLE_S)
        death = Timer(at_s, replicas[-1].kill)
        death.start()
        self.send(settings, captures)
        death.join()
        while (committed := sum(len(read_log([log]).captured_s) for log in logs)) < len(captures):
            if not replicas[0].lives:
                raise ServingError(ENDED)
            time.sleep(1.0)
        assert committed == len(captures), "one commit an image"
        self.end.touch()
        for one in replicas[:-1]:
            one.answer()
        self.end.unlink()
        return read_log(logs)

    def join(self, replica: SubjectProcess, settings: Settings, images: int) -> Path:
        """Have it join the group; returns its log of commits."""
        log = self.folder / f"commits-{uuid.uuid4().hex[:8]}.jsonl"
        replica.order(settings=settings.public(), images=images, log=str(log), end=str(self.end))
        replica.answer()
        return log

    @property
    def end(self) -> Path:
        return self.folder / "end"

    def send(self, settings: Settings, captures: Captures) -> None:
        """By the cameras' keys: Kafka's own rule decides on partitions."""
        names = camera_names(1 + max(camera for _, camera in captures))
        with closing(make_producer(settings, linger_ms=0)) as producer:
            begun = time.monotonic()
            for number, (at_s, camera) in enumerate(captures):
                time.sleep(max(0.0, begun + at_s - time.monotonic()))
                captured = Envelope(
                    f"p-{number:06d}", names[camera], IMAGE_CAPTURED, PRODUCT, datetime.now(UTC), "image/jpeg", None
                )
                producer.send(
                    settings.topics.images, self.product.jpegs[number % len(self.product.jpegs)],
                    names[camera].encode(), list(captured.headers()),
                )  # fmt: skip
            producer.flush(timeout=60)


@contextmanager
def plant(backbone: str, threads: int, say: Say, device: str = "cpu") -> Iterator[Plant]:
    """Raises LocalServersError, ModelError."""
    with TemporaryDirectory(prefix="linewatch-plan-") as folder, ExitStack() as stack:
        servers = stack.enter_context(LocalServers.start(Path(folder, "servers"), say=say))
        jpegs = drawn_photographs(PHOTOGRAPHS, defective_every=DEFECTIVE_EVERY)
        product = prepare(
            backbone,
            256,
            jpegs,
            steps=FIT_STEPS,
            device=device,
            quantise=False,
            on_step=lambda one: say(f"fitting ({one.phase})"),
        )
        os.environ.update(servers.environment())
        settings = Settings.from_values(
            {"engine": {"threads": threads, "device": device}, "topics": {"partitions": PARTITIONS}}
        )
        publish(product.bundle, settings)
        yield Plant(settings, product, Path(folder))


def read_log(logs: Sequence[Path]) -> Committed:
    lines = [json.loads(line) for log in logs if log.exists() for line in log.read_text().splitlines()]
    images = [
        (line["at"] - age_s, line["at"], partition)
        for line in lines
        for age_s, partition in zip(line["ages_s"], line["partitions"], strict=True)
    ]
    captured, finished, partitions = np.array(images, dtype=float).reshape(-1, 3).T
    return Committed(captured, finished, partitions.astype(int))
