"""The broker seam: what the worker needs of Kafka, and nothing more.

:class:`pipeline.kafka.session.KafkaSession` is the real one; :class:`pipeline.fakes.MemoryBroker` ships for tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.contracts.cloudevents import Headers
from pipeline.errors import DeadLetter

BATCH_BYTES, RECORD_BYTES = 61, 26
"""What Kafka puts around a batch and, at most, around a record of it."""


@dataclass(frozen=True)
class Record:
    """One consumed message.

    lease: names the period in which this member owned the partition. suspect: it may be what ended the process of a
    member before, and is to be taken up alone. error: why there is no more of it than its place.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    lease: int = 0
    suspect: bool = False
    error: DeadLetter | None = None

    @property
    def size(self) -> int:
        return len(self.value or b"") + len(self.key or b"") + 64


@dataclass(frozen=True)
class Outgoing:
    """One message to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes that it takes on the broker at most, in a batch of its own: what a topic's max.message.bytes limits."""
        parts = [self.key or b"", self.value or b""]
        for name, value in self.headers:
            parts += [name.encode(), value or b""]
        lengths = [len(part) for part in parts]
        return BATCH_BYTES + RECORD_BYTES + sum(length + _varint_bytes(length) for length in lengths)


def _varint_bytes(number: int) -> int:
    return 1 + (number >= 1 << 6) + (number >= 1 << 13) + (number >= 1 << 20)


class StreamSession(Protocol):
    """A member of the consumer group with the means to publish and commit as one act. Used from one thread."""

    def poll(self, timeout_s: float) -> list[Record]:
        """Records of the owned partitions, in order per partition. Must be called often, also when paused.

        Raises:
            BrokerUnavailable: the session is of no more use; close it and open another.
        """
        ...

    def owns(self, record: Record) -> bool:
        """Whether the partition is still held under the lease that the record was read with."""
        ...

    def begin(self, records: Sequence[Record]) -> None:
        """Note, for whoever comes after, that these are taken up now: where the process ends with them, one is to
        blame.

        Raises:
            BrokerUnavailable: close the session and open another.
        """
        ...

    def attempt(self, record: Record) -> int:
        """Note, for whoever comes after, that a suspect at its partition's committed offset is taken up alone now.

        Returns how often that was noted before.

        Raises:
            BrokerUnavailable: close the session and open another.
        """
        ...

    def lag(self) -> dict[int, int]:
        """Messages behind the committed offset of each owned partition, as far as the last fetch tells."""
        ...

    def hindrances(self) -> dict[int | None, str]:
        """What keeps it from going on, by partition; None: in all of them. Asked from any thread, also while another
        call waits.
        """
        ...

    def largest(self, topic: str) -> int:
        """Bytes of the largest message that a topic takes now, as far as known. Asked from any thread."""
        ...

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        """Publish ``outgoing`` and commit the offsets after ``finished``, both or neither.

        Raises:
            CommitLost: neither happened; every owned partition was set back to its committed offset, under a
                new lease. CommitRefused: and it won't happen before a person has mended something.
            BrokerUnavailable: neither will be visible; close the session and open another.
        """
        ...

    def pause(self) -> None:
        """Fetch nothing more until :meth:`resume`."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


def offsets_after(records: Sequence[Record]) -> dict[tuple[str, int], int]:
    """(topic, partition) to the offset that a restarted consumer should begin at."""
    offsets: dict[tuple[str, int], int] = {}
    for record in records:
        key = (record.topic, record.partition)
        offsets[key] = max(offsets.get(key, 0), record.offset + 1)
    return offsets
