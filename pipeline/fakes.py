"""An object store and a broker in memory, with the same contracts as the real ones and faults on demand."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pipeline.contracts.broker import Outgoing, Record, offsets_after
from pipeline.errors import (
    BrokerUnavailable,
    CommitLost,
    CommitRefused,
    DeletedUnread,
    ObjectConflict,
    ObjectMissing,
    ObjectTooLarge,
    StoreUnavailable,
)


@dataclass
class MemoryStore:
    """A bucket in a dict. Set ``outages`` to let that many calls fail with StoreUnavailable."""

    bucket: str = "linewatch"
    objects: dict[str, bytes] = field(default_factory=dict)
    outages: int = 0
    times: dict[str, datetime] = field(default_factory=dict)

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        self._answer()
        if key not in self.objects:
            raise ObjectMissing(key)
        if max_bytes is not None and len(self.objects[key]) > max_bytes:
            raise ObjectTooLarge(
                f"object {key!r} has {len(self.objects[key])} bytes, more than the limit of {max_bytes}"
            )
        return self.objects[key]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        data = self.get(key)
        return data, hashlib.md5(data).hexdigest()

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:  # noqa: ARG002
        self._answer()
        self._write(key, data)

    def put_if(self, key: str, data: bytes, etag: str | None) -> None:
        self._answer()
        now = self.get_with_etag(key)[1] if key in self.objects else None
        if now != etag:
            raise ObjectConflict(key)
        self._write(key, data)

    def exists(self, key: str) -> bool:
        self._answer()
        return key in self.objects

    def remove(self, key: str) -> None:
        self._answer()
        self.objects.pop(key, None)

    def keys(self, prefix: str) -> Iterator[str]:
        self._answer()
        yield from sorted(key for key in self.objects if key.startswith(prefix))

    def written(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        for key in self.keys(prefix):
            yield key, self.times.get(key, datetime.fromtimestamp(0, UTC))

    def _write(self, key: str, data: bytes) -> None:
        self.objects[key], self.times[key] = data, datetime.now(UTC)

    def _answer(self) -> None:
        if self.outages > 0:
            self.outages -= 1
            raise StoreUnavailable("the memory store is told not to answer")


@dataclass
class MemoryBroker:
    """Topics of partitions, one consumer group, transactions that are seen only once committed.

    Set ``lost_commits`` to let that many commits fail, ``outages`` to let that many session calls fail, and call
    :meth:`move_away` to take a partition from the member that holds it. Put (partition, offset) into ``suspects`` to
    have those records taken up alone; ``attempts`` counts how often they were. ``limits`` has the bytes of the largest
    message of a topic, ``refusal`` what the broker says to every commit, ``unreadable`` why a partition can't be read;
    :meth:`delete_records` deletes the first records of a partition, read or not.
    """

    partitions: int = 2
    topics: dict[str, list[Record]] = field(default_factory=dict)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    lost_commits: int = 0
    outages: int = 0
    commits: int = 0
    suspects: set[tuple[int, int]] = field(default_factory=set)
    begun: int = 0
    attempts: dict[tuple[int, int], int] = field(default_factory=dict)
    sessions: list["MemorySession"] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    refusal: str = ""
    unreadable: dict[int, str] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)

    def delete_records(self, partition: int, before: int) -> None:
        """Those of every topic; offsets stay as they are."""
        self.starts[partition] = before

    def produce(self, message: Outgoing) -> Record:
        log = self.topics.setdefault(message.topic, [])
        partition = sum(message.key or b"") % self.partitions
        offset = sum(1 for record in log if record.partition == partition)
        record = Record(
            message.topic, partition, offset, message.key, message.value, message.headers, 1_700_000_000_000
        )
        log.append(record)
        return record

    def read(self, topic: str) -> list[Record]:
        """All committed records of a topic."""
        return list(self.topics.get(topic, []))

    def session(self, topic: str) -> "MemorySession":
        """Join the group: the newest member gets every partition."""
        if self.outages > 0:
            self.outages -= 1
            raise BrokerUnavailable("the memory broker is told not to answer")
        for session in self.sessions:
            session.leases.clear()
        session = MemorySession(self, topic)
        self.sessions.append(session)
        return session

    def move_away(self, partition: int) -> None:
        """Take the partition from every member, and give it back under a new lease at the committed offset."""
        for session in self.sessions:
            if partition in session.leases:
                session.take(partition)


class MemorySession:
    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker, self._topic = broker, topic
        self._numbers = itertools.count(1)
        self.leases: dict[int, int] = {}
        self.positions: dict[int, int] = {}
        self.paused = False
        self.closed = False
        for partition in range(broker.partitions):
            self.take(partition)

    def take(self, partition: int) -> None:
        self.leases[partition] = next(self._numbers)
        self.positions[partition] = self._broker.committed.get((self._topic, partition), 0)

    def poll(self, timeout_s: float) -> list[Record]:  # noqa: ARG002
        if self._broker.outages > 0:
            self._broker.outages -= 1
            raise BrokerUnavailable("the memory broker is told not to answer")
        if self.paused:
            return []
        found = [gap for partition in self.leases if (gap := self._gap(partition))]
        for record in self._broker.read(self._topic):
            if record.partition in self._broker.unreadable:
                continue
            if record.partition in self.leases and record.offset == self.positions[record.partition]:
                suspect = (record.partition, record.offset) in self._broker.suspects
                found.append(replace(record, lease=self.leases[record.partition], suspect=suspect))
                self.positions[record.partition] += 1
        return found

    def _gap(self, partition: int) -> Record | None:
        first, start = self.positions[partition], self._broker.starts.get(partition, 0)
        if start <= first:
            return None
        self.positions[partition] = start
        why = DeletedUnread(f"{start - first} messages were deleted unread", first, start - first)
        lease = self.leases[partition]
        return Record(self._topic, partition, start - 1, None, None, (), 1_700_000_000_000, lease, error=why)

    def owns(self, record: Record) -> bool:
        return self.leases.get(record.partition) == record.lease

    def begin(self, records: Sequence[Record]) -> None:
        self._broker.begun += len(records)

    def attempt(self, record: Record) -> int:
        place = (record.partition, record.offset)
        before = self._broker.attempts.get(place, 0)
        self._broker.attempts[place] = before + 1
        return before

    def lag(self) -> dict[int, int]:
        ends = dict.fromkeys(self.leases, 0)
        for record in self._broker.read(self._topic):
            if record.partition in ends:
                ends[record.partition] = record.offset + 1
        return {number: end - self._broker.committed.get((self._topic, number), 0) for number, end in ends.items()}

    def hindrances(self) -> dict[int | None, str]:
        return {partition: reason for partition, reason in self._broker.unreadable.items()}  # noqa: C416

    def largest(self, topic: str) -> int:
        return self._broker.limits.get(topic, 1 << 40)

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        if self._broker.lost_commits > 0:
            self._broker.lost_commits -= 1
            for partition in list(self.leases):
                self.take(partition)
            raise CommitLost("the memory broker is told to lose this commit")
        refused = [one for one in outgoing if one.size > self.largest(one.topic)]
        if self._broker.refusal or refused:
            for partition in list(self.leases):
                self.take(partition)
            raise CommitRefused(self._broker.refusal or f"a message of {refused[0].size} bytes is too large")
        for message in outgoing:
            # What kafka-python refuses to send, whatever came in from other clients.
            if message.key is None and message.value is None:
                raise ValueError("Need at least one: key or value")
            if not all(isinstance(value, bytes) for _, value in message.headers):
                raise TypeError("All headers items must be (str, bytes) tuples")
        for message in outgoing:
            self._broker.produce(message)
        self._broker.committed.update(offsets_after(finished))
        self._broker.commits += 1

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True
        self.leases.clear()
