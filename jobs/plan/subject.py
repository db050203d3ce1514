"""The process whose stages are timed: a replica's real worker. Run as `python -m jobs.plan.subject`.

Its first line of input is a `Subject` of `jobs/bench/stream_subject.py` as JSON; then each line is an order, and each
answer a line of JSON:

    {"settings": public settings, "images": N, "log": FILE, "end": FILE}     join the group, commit images, leave it

It answers "joined" once it has partitions, and what was timed once N images are committed or the file `end` is there.
The file `log` gets a line for each commit as it happens, so that it is there though the process be killed.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.bench.stream_subject import SimulatedDevice, Subject
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.cloudevents import envelope
from pipeline.kafka.session import KafkaSession
from pipeline.settings import Settings
from pipeline.storage.store import S3Store
from pipeline.stream.inspector import Inspector
from pipeline.stream.output import Largest
from pipeline.stream.stages import Stages
from pipeline.stream.steps import Work
from pipeline.stream.worker import IDLE_POLL_S, StreamWorker


class Clock:
    """What was timed: stage, images and seconds of each; and bytes and counts of messages by their topic."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.timed: list[tuple[str, int, float]] = []
        self.fetch_s: list[float] = []
        self.messages: dict[str, list[int]] = {}
        self.committed = 0
        self.joined = threading.Event()

    def time(self, stage: str, images: int, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        found = work()
        if images:
            self.timed.append((stage, images, time.perf_counter() - begun))
        return found

    def note_commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        now, at = datetime.now(UTC), time.time()
        ages = [(now - envelope(record.headers, now).time).total_seconds() for record in finished]
        for message in outgoing:
            self.messages.setdefault(message.topic, []).append(message.size)
        with self._log.open("a") as file:
            told = {"at": at, "ages_s": ages, "partitions": [record.partition for record in finished]}
            file.write(json.dumps(told) + "\n")
        self.committed += len(finished)


class TimedStages(Stages):
    clock: Clock

    def _prepare(self, batch: list[Work]) -> None:
        self.clock.time("prepare", len(batch), lambda: super(TimedStages, self)._prepare(batch))

    def _score(self, batch: list[Work]) -> None:
        self.clock.time("score", len(batch), lambda: super(TimedStages, self)._score(batch))

    def _cut(self, works: list[Work], live: list[Work], largest: Largest) -> None:
        self.clock.time("cut", len(live), lambda: super(TimedStages, self)._cut(works, live, largest))


class TimedSession(KafkaSession):
    def __init__(self, settings: Settings, rank: int, clock: Clock) -> None:
        self.clock = clock
        super().__init__(settings, rank=lambda: rank, exactly_once=True)

    def poll(self, timeout_s: float) -> list[Record]:
        begun = time.perf_counter()
        records = super().poll(timeout_s)
        if records and timeout_s < IDLE_POLL_S:
            self.clock.timed.append(("poll", len(records), time.perf_counter() - begun))
        elif records:  # it had waited for them
            now = datetime.now(UTC)
            self.clock.fetch_s += [(now - envelope(one.headers, now).time).total_seconds() for one in records]
        return records

    def assigned(self, partitions: Sequence[Any]) -> None:
        super().assigned(partitions)
        if partitions:
            self.clock.joined.set()

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        self.clock.time("commit", len(finished), lambda: super(TimedSession, self).commit(outgoing, finished))
        self.clock.note_commit(outgoing, finished)


class TimedWorker(StreamWorker):
    def __init__(self, inspector: Inspector, open_session: Callable[[], TimedSession], clock: Clock) -> None:
        super().__init__(inspector, open_session)
        self._stages.close()
        self._stages = TimedStages(inspector, self._patience, self._on_moved)
        self._stages.clock = clock


def work(
    settings: Settings, inspector: Inspector, rank: int, order: dict[str, Any], answer: Callable[[object], None]
) -> None:
    """Commit images until they are enough, and tell what was timed."""
    clock, end = Clock(Path(order["log"])), Path(order["end"])
    worker = TimedWorker(inspector, lambda: TimedSession(settings, rank, clock), clock)
    begun = time.process_time()
    worker.start()
    clock.joined.wait()
    answer("joined")
    while clock.committed < order["images"] and not end.exists():
        time.sleep(0.02)
    cpu_s = time.process_time() - begun
    worker.stop()
    answer(
        {
            "timed": clock.timed,
            "fetch_s": clock.fetch_s,
            "cpu_s_per_image": cpu_s / max(1, clock.committed),
            "mask_bytes": _mean(clock.messages.get(settings.topics.masks, [])),
            "event_bytes": _mean(clock.messages.get(settings.topics.events, [])),
        }
    )


def _mean(sizes: Sequence[int]) -> int:
    return round(sum(sizes) / len(sizes)) if sizes else 0


def _inspector(settings: Settings, service_ms: float | None) -> Inspector:
    if service_ms is not None:
        return SimulatedDevice(settings, S3Store(settings.s3), service_ms)
    inspector = Inspector(settings, S3Store(settings.s3))
    inspector.champions.preload()
    return inspector


def main() -> None:
    subject = Subject(**json.loads(sys.stdin.readline()))
    answer: Callable[[object], None] = lambda told: print(json.dumps(told), flush=True)  # noqa: E731, T201
    answer("ready")
    for line in sys.stdin:
        order = json.loads(line)
        settings = Settings.received(order["settings"])
        inspector = _inspector(settings, subject.service_ms)
        work(settings, inspector, subject.rank, order, answer)


if __name__ == "__main__":
    main()
