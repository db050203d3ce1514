"""The broker seam: what the worker needs of Kafka, and nothing more.

:class:`pipeline.kafka.session.KafkaSession` is the real one; :class:`pipeline.fakes.MemoryBroker` ships for tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.contracts.cloudevents import Headers


@dataclass(frozen=True)
class Record:
    """One consumed message.

    lease: names the period in which this member owned the partition. suspect: it may be what ended the process of a
    member before, and is to be taken up alone.
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

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        """Publish ``outgoing`` and commit the offsets after ``finished``, both or neither.

        Raises:
            CommitLost: neither happened; every owned partition was set back to its committed offset, under a
                new lease.
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
