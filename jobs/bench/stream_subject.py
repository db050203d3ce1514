"""The process that `linewatch bench stream` measures: one replica's worker, or the bare engine on the same images.

Run as `python -m jobs.bench.stream_subject`. Its first line of input is a `Subject` as JSON; then each line is an
order, and each answer a line of JSON:

    {"bare": [base64 JPEG, ...], "seconds": S}     decode, score, cut, encode in batches, as fast as it goes
    {"stream": N}                                  join the group, commit N images, leave it
"""

import base64
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from model import Findings, Frame, Scored, encode_mask_png
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.cloudevents import envelope
from pipeline.kafka.session import KafkaSession
from pipeline.settings import Settings
from pipeline.storage.store import S3Store
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker

PRODUCT = "bench"
SIMULATED = "20260101T000000Z-00000000"


@dataclass(frozen=True)
class Subject:
    """settings: public ones. service_ms: of a simulated device, per image; none: the product's own model."""

    settings: dict[str, Any]
    rank: int
    service_ms: float | None = None


class SimulatedDevice(Inspector):
    """Takes a fixed time for an image, and no processor: what is left is the stream's own cost."""

    def __init__(self, settings: Settings, store: S3Store, service_ms: float) -> None:
        super().__init__(settings, store)
        self._service_s = service_ms / 1000
        self._map_HW = np.zeros((64, 64), dtype=np.float32)
        self.champions.version = lambda product: SIMULATED  # type: ignore[method-assign]  # noqa: ARG005

    def read(self, data: bytes, key: str) -> Frame:  # noqa: ARG002
        return Frame(np.zeros((64, 64, 3), dtype=np.uint8), 64, 64)

    def score(self, frames: Sequence[Frame], keys: Sequence[str]) -> list[Scored]:  # noqa: ARG002
        if self._service_s:
            time.sleep(self._service_s * len(frames))
        one = Scored(0.0, 0.0, 1.0, "OK", self._map_HW, 64, 64, 1.0, 1.0, 1.0)
        return [one] * len(frames)

    def cut(self, scored: Scored) -> Findings:
        return super().cut(scored)


class TimedSession(KafkaSession):
    """Notes when each transaction ended, how many images it had, how long it took, and how old they were."""

    commits: list[dict[str, Any]]

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        begun = time.monotonic()
        super().commit(outgoing, finished)
        now, ended = datetime.now(UTC), time.monotonic()
        ages = [(now - envelope(record.headers, now).time).total_seconds() for record in finished]
        self.commits.append({"at": time.time(), "images": len(finished), "seconds": ended - begun, "ages_s": ages})


def stream(settings: Settings, inspector: Inspector, rank: int, images: int) -> list[dict[str, Any]]:
    """The transactions until so many images are committed."""
    commits: list[dict[str, Any]] = []

    def joined() -> TimedSession:
        session = TimedSession(settings, rank=lambda: rank, exactly_once=True)
        session.commits = commits
        return session

    worker = StreamWorker(inspector, joined)
    worker.start()
    while sum(one["images"] for one in commits) < images:
        time.sleep(0.02)
    worker.stop()
    return commits


def bare(settings: Settings, inspector: Inspector, jpegs: Sequence[bytes], seconds: float) -> dict[str, float]:
    """From bytes to an encoded mask without any stream; images per second, and the seconds of a whole batch."""
    key = f"{PRODUCT}/{inspector.champions.version(PRODUCT)}"
    batch = settings.stream.batch_images
    done, took = 0, []
    with ThreadPoolExecutor(settings.stream.decode_threads) as pool:
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            started = time.monotonic()
            files = [jpegs[(done + place) % len(jpegs)] for place in range(batch)]
            frames = list(pool.map(lambda data: inspector.read(data, key), files))
            results = inspector.score(frames, [key] * batch)
            list(pool.map(lambda result: encode_mask_png(inspector.cut(result).mask), results))
            done += batch
            took.append(time.monotonic() - started)
        return {"images_per_s": done / (time.monotonic() - begun), "batch_s": float(np.median(took))}


def main() -> None:
    subject = Subject(**json.loads(sys.stdin.readline()))
    settings = Settings.received(subject.settings)
    store = S3Store(settings.s3)
    if subject.service_ms is None:
        inspector = Inspector(settings, store)
        inspector.champions.preload()
    else:
        inspector = SimulatedDevice(settings, store, subject.service_ms)
    answer: Callable[[object], None] = lambda told: print(json.dumps(told), flush=True)  # noqa: E731, T201
    answer("ready")
    for line in sys.stdin:
        order = json.loads(line)
        if "stream" in order:
            answer(stream(settings, inspector, subject.rank, order["stream"]))
        else:
            answer(bare(settings, inspector, [base64.b64decode(one) for one in order["bare"]], order["seconds"]))


if __name__ == "__main__":
    main()
