"""A member of the consumer group on a real broker, with publish-and-commit in one transaction."""

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import CommitFailedError, KafkaError, KafkaTimeoutError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from pipeline.contracts.broker import Outgoing, Record, offsets_after
from pipeline.errors import BrokerUnavailable, CommitLost
from pipeline.kafka.attempts import Attempts
from pipeline.kafka.clients import CLIENT_ERRORS, admin_client, broker_answers, make_producer
from pipeline.kafka.left_open import end_left_open
from pipeline.kafka.membership import Membership
from pipeline.settings import Settings
from pipeline.telemetry import metrics

log = logging.getLogger(__name__)
FLUSH_TIMEOUT_S = 15
NOTE_TIMEOUT_MS = 5000
UNSTABLE_MS = 1000
"""A transaction of the living is over by then."""
STILL_UNSTABLE_MS = 5000
PROCESS = f"linewatch-{uuid.uuid4().hex[:12]}"
"""The client id of this process's members, by which others tell whether it lives."""
DEATHS_TO_SUSPECT = 2
"""At one offset. Going alone is slow, and one death is more often a machine's than an image's."""
MOST_BATCHES_IN_FLIGHT = 8
"""More than a worker ever has: so far behind a committed offset may lie what ended a process."""


class KafkaSession:
    """Exactly once where the broker's transactions work, else at least once (publish, flush, commit)."""

    def __init__(self, settings: Settings, *, rank: Callable[[], int], exactly_once: bool) -> None:
        """Joins the group.

        Args:
            rank: of the replica, now: Serve may change it. With the group's name it makes the transactional id, so
                that a restarted replica fences its own past and ends its open transaction at once.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        self._settings = settings
        self._rank = rank
        self._process = PROCESS
        self._exactly_once = exactly_once
        self._transactional_id = ""
        self._leases: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._attempts: dict[TopicPartition, Attempts] = {}  # at the committed offset, where somebody left a note
        self._suspects_end: dict[TopicPartition, int] = {}
        self._assigned_anew: set[TopicPartition] = set()
        self._was_expelled = False
        self._inherited = False
        self._unstable_since: float | None = None
        self._unnoted: set[TopicPartition] = set()  # whose first message has not been taken up yet
        self._lease_numbers = itertools.count(1)
        self._paused = False
        self._publish_thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        instance = f"{settings.kafka.group}-{rank()}" if settings.kafka.static_membership else None
        with broker_answers(settings):
            self._producer = self._open_producer()
            try:
                self._member = Membership(settings, self._process, instance, self)
                self._consumer = self._member.consumer
            except BaseException:
                with suppress(*CLIENT_ERRORS):
                    self._close_producer()
                raise

    # What the worker calls

    def poll(self, timeout_s: float) -> list[Record]:
        with broker_answers(self._settings):
            if not self._member.joined(timeout_s):
                return []
            fetched = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        if self._was_expelled:
            self._was_expelled = False
            self._taken(self._consumer.assignment())
        if self._inherited:
            # Whose they were may have died within a transaction: readers wait for its end, and so does what follows.
            self._inherited = False
            Thread(target=self._end_left_open, name="left-open", daemon=True).start()
        # kafka-python keeps the position of a partition that stays with its member in a rebalance, and thereby skips
        # what was fetched and not committed. Not within the callback: it runs in the client's own loop.
        anew = self._assigned_anew & set(self._consumer.assignment())
        for tp in anew:
            # The group waits for whoever does not join again: the others later.
            if self._member.must_join or not self._rewind(tp):
                break
        owned = {tp: messages for tp, messages in fetched.items() if tp in self._leases and tp not in anew}
        return [self._record(tp, one) for tp, messages in owned.items() for one in messages]

    def owns(self, record: Record) -> bool:
        return self._leases.get(TopicPartition(record.topic, record.partition)) == record.lease

    def begin(self, records: Sequence[Record]) -> None:
        first = self._unnoted.intersection(TopicPartition(one.topic, one.partition) for one in records)
        if not first:
            return
        self._unnoted -= first
        notes = {}
        for tp in first:
            self._attempts[tp] = replace(self._attempts[tp], begun=self._attempts[tp].begun + 1)
            notes[tp] = OffsetAndMetadata(self._committed[tp], self._attempts[tp].note(), -1)
        self._commit_notes(notes)

    def attempt(self, record: Record) -> int:
        tp = TopicPartition(record.topic, record.partition)
        before = self._attempts.get(tp, Attempts())
        died = before.alone - (1 if before.alone and self._lives(before.by) else 0)
        after = replace(before, alone=died + 1, by=self._process)
        self._commit_notes({tp: OffsetAndMetadata(record.offset, after.note(), -1)})
        self._attempts[tp] = after
        return died

    def lag(self) -> dict[int, int]:
        found = {}
        for tp in list(self._leases):
            end = self._consumer.highwater(tp) if tp in self._consumer.assignment() else None
            if end is not None and tp in self._committed:
                found[tp.partition] = max(0, end - self._committed[tp])
        return found

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        after = {TopicPartition(topic, number): offset for (topic, number), offset in offsets_after(finished).items()}
        offsets = {tp: OffsetAndMetadata(offset, self._note(tp, offset), -1) for tp, offset in after.items()}
        try:
            # Before the leases are looked at: what is revoked after this line makes the generation an old one.
            generation = self._member.generation()
            if not all(self.owns(record) for record in finished):
                raise CommitFailedError("a partition was revoked this very moment")
            if self._exactly_once:
                self._beside_joins(partial(self._transact, outgoing, offsets, generation))
            else:
                self._send(outgoing)
                self._consumer.commit(offsets)
        except CLIENT_ERRORS as error:
            log.warning("commit lost (%s: %s); going back to the committed offsets", type(error).__name__, error)
            self._leases.clear()
            self._assigned_anew.update(self._consumer.assignment())
            self._abort()
            raise CommitLost(f"{type(error).__name__}: {error}") from error
        self._committed.update(after)
        for tp, one in offsets.items():
            self._attempts[tp] = Attempts.read(one.metadata)

    def pause(self) -> None:
        if not self._paused:
            self._consumer.pause(*self._consumer.assignment())
            self._paused = True
            metrics.pauses.inc()

    def resume(self) -> None:
        if self._paused:
            self._consumer.resume(*self._consumer.paused())
            self._paused = False

    def close(self) -> None:
        self._leases.clear()  # what is still in flight is nobody's
        for name, end in [("producer", self._close_producer), *self._member.ends()]:
            try:
                end()
            except (*CLIENT_ERRORS, BrokerUnavailable) as error:
                log.info("closing the %s: %s: %s", name, type(error).__name__, error)
        self._publish_thread.shutdown(wait=False)

    # A holder of partitions (pipeline.kafka.membership): those that stay keep their leases and what is in flight.

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        if not partitions:
            return
        self._taken(partitions)
        self._inherited = True
        if self._paused:
            self._consumer.pause(*partitions)
        metrics.rebalances.labels("assigned").inc()
        log.info("assigned %s", sorted(tp.partition for tp in partitions))

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self._leases.pop(tp, None)
            self._assigned_anew.discard(tp)
        if partitions:
            metrics.rebalances.labels("revoked").inc()
            log.info("revoked %s", sorted(tp.partition for tp in partitions))

    def expelled(self) -> None:
        self._leases.clear()
        self._was_expelled = True

    # Inside

    def _beside_joins(self, work: Callable[[], None]) -> None:
        self._member.wait_for(self._publish_thread.submit(work))

    def _transact(
        self,
        outgoing: Sequence[Outgoing],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        generation: ConsumerGroupMetadata,
    ) -> None:
        self._producer.begin_transaction()
        if outgoing:
            self._send(outgoing)
        self._producer.send_offsets_to_transaction(offsets, generation)
        self._producer.commit_transaction()

    def _send(self, outgoing: Sequence[Outgoing]) -> None:
        futures = [
            self._producer.send(message.topic, value=message.value, key=message.key, headers=list(message.headers))
            for message in outgoing
        ]
        self._producer.flush(timeout=FLUSH_TIMEOUT_S)
        for future in futures:
            future.get(timeout=FLUSH_TIMEOUT_S)

    def _abort(self) -> None:
        """Leave no open transaction: a new producer fences the old one, and thereby aborts what that left open.

        Never by `abort_transaction`: kafka-python 3.0.12 keeps offsets that the broker refused, and sends them again
        with the next transaction, under a generation that is valid by then. So they would set back what another
        member has committed meanwhile, and its images would be inspected twice.
        """
        if self._exactly_once:
            metrics.aborts.inc()
        with broker_answers(self._settings):
            self._beside_joins(self._renew_producer)

    def _renew_producer(self) -> None:
        try:
            self._close_producer()
        except CLIENT_ERRORS as error:
            log.info("closing the producer: %s", type(error).__name__)
        self._producer = self._open_producer()

    def _taken(self, partitions: Collection[TopicPartition]) -> None:
        self._assigned_anew.update(partitions)
        self._unnoted.update(partitions)

    def _rewind(self, tp: TopicPartition) -> bool:
        """Set a partition back to its committed offset, under a new lease; False where that offset may still change."""
        with broker_answers(self._settings):
            within_ms = self._stable_within_ms()
            try:
                committed = self._consumer.committed(tp, metadata=True, timeout_ms=within_ms)
            except KafkaTimeoutError:
                log.info("partition %d: an open transaction may still change its committed offset", tp.partition)
                self._end_left_open()
                return False
            self._unstable_since = None
            if committed is None:
                self._consumer.seek_to_beginning(tp)
                self._committed[tp] = self._consumer.position(tp)
            else:
                self._consumer.seek(tp, committed.offset)
                self._committed[tp] = committed.offset
        self._attempts[tp] = Attempts.read(committed.metadata if committed else None)
        self._suspect(tp, self._attempts[tp].begun)
        self._assigned_anew.discard(tp)
        self._leases[tp] = next(self._lease_numbers)
        return True

    def _end_left_open(self) -> None:
        if not self._exactly_once:
            return
        try:
            end_left_open(self._settings, own=self._transactional_id)
        except (*CLIENT_ERRORS, BrokerUnavailable) as error:
            log.info("transactions that are left open were not looked for: %s: %s", type(error).__name__, error)

    def _stable_within_ms(self) -> int:
        """How long to wait for a committed offset at a time. Not long at first: a dead member's transaction may keep it
        back, which its heir ends once it is old enough.

        Raises:
            KafkaTimeoutError: for longer than any transaction may last there was none.
        """
        now = time.monotonic()
        self._unstable_since = self._unstable_since or now
        unstable_ms = (now - self._unstable_since) * 1000
        if unstable_ms > self._settings.kafka.transaction_timeout_ms:
            raise KafkaTimeoutError("a committed offset is kept back by a transaction that does not end")
        return UNSTABLE_MS if unstable_ms < self._settings.kafka.session_timeout_ms else STILL_UNSTABLE_MS

    def _lives(self, process: str) -> bool:
        """Whether a process that took a message up has only lost its partition. Where nobody can tell, it has died."""
        if process == self._process:
            return True
        with admin_client(self._settings) as admin:
            try:
                group = admin.describe_groups([self._settings.kafka.group])[self._settings.kafka.group]
            except KafkaError as error:
                log.info("the group's members can't be listed: %s: %s", type(error).__name__, error)
                return False
        return any(one["client_id"] == process for one in group["members"])

    def _suspect(self, tp: TopicPartition, begun: int) -> None:
        """Where several members began, and none got past it, everything that can have been in flight is suspect."""
        suspect = begun >= DEATHS_TO_SUSPECT
        window = MOST_BATCHES_IN_FLIGHT * self._settings.stream.batch_images if suspect else 0
        self._suspects_end[tp] = self._committed[tp] + window
        if suspect:
            log.warning(
                "partition %d: %d members began at offset %d and none got past it; taking up the next ones alone",
                tp.partition, begun, self._committed[tp],
            )  # fmt: skip

    def _commit_notes(self, notes: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Offsets that are committed already, with other metadata. Where it fails, a note is missing and no more.

        In a transaction where there are any: it carries this generation, and a client that tries a plain commit again
        after a rebalance would set back what another member has committed meanwhile.
        """
        try:
            generation = self._member.generation()
            owned = {tp: note for tp, note in notes.items() if tp in self._leases}
            if not owned:
                return
            if self._exactly_once:
                self._beside_joins(partial(self._transact, (), owned, generation))
            else:
                self._consumer.commit(owned, timeout_ms=NOTE_TIMEOUT_MS)
        except CLIENT_ERRORS as error:
            log.info("no note at the committed offsets: %s: %s", type(error).__name__, error)
            self._abort()

    def _note(self, tp: TopicPartition, offset: int) -> str:
        """The metadata of a commit: among suspects the next one is begun with it."""
        return Attempts(begun=1).note() if offset < self._suspects_end.get(tp, 0) else ""

    def _record(self, tp: TopicPartition, message: Any) -> Record:
        return Record(
            topic=tp.topic,
            partition=tp.partition,
            offset=message.offset,
            key=message.key,
            value=message.value,
            headers=tuple(message.headers or ()),
            timestamp_ms=message.timestamp,
            lease=self._leases.get(tp, 0),  # 0: revoked this very moment
            suspect=message.offset < self._suspects_end.get(tp, 0),
        )

    def _open_producer(self) -> KafkaProducer:
        if not self._exactly_once:
            return make_producer(self._settings)
        self._transactional_id = f"{self._settings.kafka.group}-{self._rank()}"
        producer = make_producer(
            self._settings,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=self._settings.kafka.transaction_timeout_ms,
        )
        producer.init_transactions()
        return producer

    def _close_producer(self) -> None:
        try:
            self._producer.close(timeout=2)
        except KafkaError:
            # close() flushes first and gives up when the broker is away, leaving its sender thread trying for ever.
            self._producer._sender.force_close()
            raise
