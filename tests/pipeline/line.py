"""A worker on a broker and a store in memory, for the tests that watch what comes out."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from pipeline.contracts.events import InspectionEvent
from pipeline.fakes import MemoryBroker, MemoryStore
from pipeline.settings import Settings
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker
from tests.pipeline.tiny import message

IMAGES, EVENTS, MASKS, LETTERS = (f"linewatch.{name}" for name in ("images", "events", "masks", "deadletters"))


def settings(**stream: object) -> Settings:
    return Settings.from_values(
        {"engine": {"device": "cpu", "threads": 1}, "stream": {"batch_images": 4, "release_poll_s": 0.1, **stream}}
    )


class Line:
    """A worker on a broker and a store in memory, with the means to look at what came out."""

    def __init__(self, store: MemoryStore, chosen: Settings, *, partitions: int = 2) -> None:
        self.store, self.broker = store, MemoryBroker(partitions=partitions)
        self.inspector = Inspector(chosen, store)
        self.worker = StreamWorker(self.inspector, lambda: self.broker.session(IMAGES))
        self.sent = 0

    def send(self, *values: bytes | None, **envelope: str) -> list[str]:
        """As captured images of two cameras; returns the image ids."""
        names = []
        for value in values:
            names.append(f"img-{self.sent:04d}")
            camera = f"/plant/cam{self.sent % 2}"
            self.broker.produce(message(names[-1], value, **{"camera": camera, **envelope}))
            self.sent += 1
        return names

    def events(self) -> list[InspectionEvent]:
        return [InspectionEvent.model_validate_json(record.value or b"") for record in self.broker.read(EVENTS)]

    def seen(self) -> Counter[str]:
        return Counter(event.image_id for event in self.events())

    def letters(self) -> list[tuple[str, str]]:
        """(image id, class) of each dead letter."""
        headers = [
            {n: (v or b"").decode(errors="replace") for n, v in record.headers} for record in self.broker.read(LETTERS)
        ]
        return sorted((one.get("ce_id", ""), one["dlq.error.class"]) for one in headers)

    def finished(self) -> bool:
        """Whether every image is committed."""
        return sum(self.broker.committed.values()) == len(self.broker.read(IMAGES))


class HasWorker(Protocol):
    inspector: Inspector
    worker: StreamWorker


AnyLine = TypeVar("AnyLine", bound=HasWorker)


@contextmanager
def running(line: AnyLine) -> Iterator[AnyLine]:
    line.worker.start()
    try:
        yield line
    finally:
        line.worker.stop()
        line.inspector.champions.close()
