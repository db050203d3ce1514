"""A worker on real servers, the images that it is sent, and the audit of what came out."""

from collections.abc import Callable, Sequence
from contextlib import closing

from kafka import TopicPartition

from jobs.audit.log import committed_offsets
from jobs.audit.report import Audit
from jobs.audit.run import run_audit
from jobs.audit.window import Window
from jobs.line.follow import Follower, event_of
from jobs.session.progress import Screen
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.events import InspectionEvent
from pipeline.errors import BrokerUnavailable
from pipeline.kafka.clients import make_consumer, make_producer
from pipeline.kafka.session import KafkaSession
from pipeline.settings import Settings
from pipeline.storage.store import ObjectStore
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker

# What a line needs of the settings: small batches, and no doubt of what the broker can do.
SMALL: dict[str, dict[str, object]] = {
    "stream": {"batch_images": 4},
    "engine": {"device": "cpu", "threads": 1, "backend": "torch"},
}


class WatchedSession(KafkaSession):
    """Counts what a test asks a member of the group for."""

    polls = 0
    losses = 0

    def poll(self, timeout_s: float) -> list[Record]:
        self.polls += 1
        return super().poll(timeout_s)

    def revoked(self, partitions: Sequence[object]) -> None:
        self.losses += len(partitions)
        super().revoked(partitions)  # type: ignore[arg-type]


class RealLine:
    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self.settings = settings
        self.inspector = Inspector(settings, store)
        self.worker = StreamWorker(self.inspector, self._open)
        self.sessions: list[WatchedSession] = []

    def _open(self) -> WatchedSession:
        self.sessions.append(WatchedSession(self.settings, rank=lambda: 0, exactly_once=True))
        return self.sessions[-1]

    @property
    def polls(self) -> int:
        return sum(session.polls for session in self.sessions)

    @property
    def losses(self) -> int:
        """Partitions that were taken from it."""
        return sum(session.losses for session in self.sessions)

    def send(self, images: Sequence[Outgoing]) -> None:
        """Returns once all are acknowledged."""
        with closing(make_producer(self.settings)) as producer:
            sent = [producer.send(self.settings.topics.images, one.value, one.key, list(one.headers)) for one in images]
            for future in sent:
                future.get(timeout=15)

    def committed(self) -> int:
        """How far the group has come, in messages."""
        topics = self.settings.topics
        return sum(
            offset or 0 for offset in committed_offsets(self.settings, topics.images, range(topics.partitions)).values()
        )

    def pending(self) -> int:
        """Offsets that the group has not reached."""
        topic = self.settings.topics.images
        with closing(make_consumer(self.settings)) as consumer:
            partitions = [TopicPartition(topic, number) for number in range(self.settings.topics.partitions)]
            return sum(consumer.end_offsets(partitions).values()) - self.committed()

    def events(self) -> list[InspectionEvent]:
        with Follower(self.settings, self.settings.topics.events, from_beginning=True) as follower:
            return [event_of(record) for record in follower.rest()]

    def audit(self, window: Window = Window()) -> Audit:  # noqa: B008
        return run_audit(self.settings, window, Screen())


def has_done(line: RealLine, images: int) -> Callable[[], bool]:
    """Whether so many images are committed, and the worker is well meanwhile."""

    def holds() -> bool:
        assert line.worker.trouble() is None
        try:
            return line.committed() >= images
        except BrokerUnavailable:  # its controller takes a broker that a busy machine held up for dead, for a moment
            return False

    return holds
