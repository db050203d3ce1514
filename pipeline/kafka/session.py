"""A member of the consumer group on a real broker, with publish-and-commit in one transaction."""

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any

from kafka import TopicPartition
from kafka.errors import CommitFailedError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from pipeline.contracts.broker import Outgoing, Record, offsets_after
from pipeline.contracts.deadletters import letter_of_deleted
from pipeline.errors import BrokerUnavailable, CommitLost, CommitRefused
from pipeline.kafka.attempts import Attempts
from pipeline.kafka.clients import CLIENT_ERRORS, broker_answers
from pipeline.kafka.gaps import Place, Places, position_of, start_of
from pipeline.kafka.held_up import HeldUp
from pipeline.kafka.left_open import end_left_open
from pipeline.kafka.lookout import Lookout
from pipeline.kafka.member_names import member_name
from pipeline.kafka.membership import Membership, lives
from pipeline.kafka.publisher import Publisher
from pipeline.kafka.reading import UnreadableBatch
from pipeline.kafka.refusals import refusal
from pipeline.settings import Settings
from pipeline.telemetry import metrics

log = logging.getLogger(__name__)
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

    def __init__(self, settings: Settings, *, rank: Callable[[], int], exactly_once: bool, cluster: str = "") -> None:
        """Joins the group.

        Args:
            rank: of the replica, now: Serve may change it. With the group's name it makes the transactional id, so
                that a restarted replica fences its own past and ends its open transaction at once.
            cluster: within which ranks are unique; replicas of another cluster may be members of the same group.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        self._settings = settings
        self._process = PROCESS
        self._exactly_once = exactly_once
        self._lookout = Lookout(settings)
        self._leases: dict[TopicPartition, int] = {}
        self._places = Places(settings.topics.images)
        self._held_up = HeldUp()
        self._not_joined_since: float | None = None
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
        name = partial(member_name, settings.kafka.group, rank, cluster)
        instance = name() if settings.kafka.static_membership else None
        with broker_answers(settings):
            self._publisher = Publisher(settings, name=name, exactly_once=exactly_once, lookout=self._lookout)
            try:
                self._member = Membership(settings, self._process, instance, self)
                self._consumer = self._held_up.consumer = self._member.consumer
            except BaseException:
                with suppress(*CLIENT_ERRORS):
                    self._publisher.close()
                raise
        self._lookout.start()

    # What the worker calls

    def poll(self, timeout_s: float) -> list[Record]:
        with broker_answers(self._settings):
            if not self._member.joined(timeout_s):
                self._not_joined_since = self._not_joined_since or time.monotonic()
                return []
            self._not_joined_since = None
            self._held_up.try_again(paused=self._paused)
            fetched = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        self._forget_old_topic()
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
        gaps = [gap for tp in self._leases.keys() - anew if (gap := self._follow(tp, fetched.get(tp, ())))]
        for tp in anew:
            # The group waits for whoever does not join again: the others later.
            if self._member.must_join or not self._rewind(tp, gaps):
                break
        owned = {tp: messages for tp, messages in fetched.items() if tp in self._leases and tp not in anew}
        return gaps + [self._record(tp, one) for tp, messages in owned.items() for one in messages]

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
            notes[tp] = OffsetAndMetadata(self._places.of[tp].committed, self._attempts[tp].note(), -1)
        self._commit_notes(notes)

    def attempt(self, record: Record) -> int:
        tp = TopicPartition(record.topic, record.partition)
        before = self._attempts.get(tp, Attempts())
        alive = before.alone > 0 and (before.by == self._process or lives(self._settings, before.by))
        died = before.alone - alive  # one that lives has only lost its partition
        after = replace(before, alone=died + 1, by=self._process)
        self._commit_notes({tp: OffsetAndMetadata(record.offset, after.note(), -1)})
        self._attempts[tp] = after
        return died

    def lag(self) -> dict[int, int]:
        found = {}
        for tp in list(self._leases):
            if place := self._places.of.get(tp):
                # The client knows the end as of its last fetch, which may be what does not get on.
                end = self._lookout.ends.get(tp.partition, 0) if self._exactly_once else 0
                found[tp.partition] = replace(place, end=max(place.end, end)).lag
        return found

    def hindrances(self) -> dict[int | None, str]:
        found = self._held_up.told()
        since, limit_s = self._not_joined_since, self._settings.stream.stall_s
        for number in self._lookout.unheld(limit_s):
            found.setdefault(number, f"no replica of the group has had this partition for more than {limit_s:g} s")
        if self._lookout.trouble:
            found[None] = f"Kafka at {self._settings.kafka.bootstrap_servers}: {self._lookout.trouble}"
        elif since is not None and time.monotonic() - since > limit_s:
            found[None] = f"joining the consumer group takes longer than {limit_s:.0f} s: its other members don't"
        return found

    def largest(self, topic: str) -> int:
        return self._lookout.largest(topic)

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        after = {TopicPartition(topic, number): offset for (topic, number), offset in offsets_after(finished).items()}
        offsets = {tp: OffsetAndMetadata(offset, self._note(tp, offset), -1) for tp, offset in after.items()}
        try:
            # Before the leases are looked at: what is revoked after this line makes the generation an old one.
            generation = self._member.generation()
            if not all(self.owns(record) for record in finished):
                raise CommitFailedError("a partition was revoked this very moment")
            if self._exactly_once:
                self._beside_joins(partial(self._publisher.transact, outgoing, offsets, generation))
            else:
                self._publisher.send(outgoing)
                self._consumer.commit(offsets)
        except CLIENT_ERRORS as error:
            log.warning("commit lost (%s: %s); going back to the committed offsets", type(error).__name__, error)
            self._lookout.soon()
            self._leases.clear()
            self._assigned_anew.update(self._consumer.assignment())
            self._abort()
            if told := refusal(error):
                raise CommitRefused(f"Kafka at {self._settings.kafka.bootstrap_servers} refuses: {told}") from error
            raise CommitLost(f"{type(error).__name__}: {error}") from error
        for tp, one in offsets.items():
            self._places.of[tp].committed = one.offset
            self._attempts[tp] = Attempts.read(one.metadata)

    def pause(self) -> None:
        if not self._paused:
            self._consumer.pause(*self._consumer.assignment())
            self._paused = True
            metrics.pauses.inc()

    def resume(self) -> None:
        if self._paused:
            self._consumer.resume(*(self._consumer.paused() - self._held_up.partitions))
            self._paused = False

    def close(self) -> None:
        self._leases.clear()  # what is still in flight is nobody's
        self._lookout.close()
        for name, end in [("producer", self._publisher.close), *self._member.ends()]:
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
            self._places.left(tp)
            self._held_up.forget(tp)
            self._assigned_anew.discard(tp)
        if partitions:
            metrics.rebalances.labels("revoked").inc()
            log.info("revoked %s", sorted(tp.partition for tp in partitions))

    def expelled(self) -> None:
        self._leases.clear()
        self._was_expelled = True

    def unreadable(self, tp: TopicPartition, batch: UnreadableBatch) -> None:
        self._held_up.note(tp, batch)

    # Inside

    def _follow(self, tp: TopicPartition, messages: Sequence[Any]) -> Record | None:
        """Whether reading goes on where it ought to; a record that says what was deleted where it does not."""
        first, last = (messages[0].offset, messages[-1].offset) if messages else (None, None)
        position, end = position_of(self._consumer, tp), self._consumer.highwater(tp)
        self._places.of[tp].end = end or self._places.of[tp].end  # before the topic may be gone
        how = self._places.moved(tp, first, last, position)
        if how == "on":
            return None
        came = first if first is not None else position
        assert came is not None
        if how == "back":
            log.warning("%s partition %d begins again at offset %d", tp.topic, tp.partition, came)
            self._consumer._client.cluster.request_update()
            self._leases.pop(tp, None)
            self._assigned_anew.add(tp)
            return None
        with broker_answers(self._settings):
            gap = self._places.gap(tp, start_of(self._consumer, tp), came, self._leases[tp])
        if last is not None:
            self._places.moved(tp, came, last, position)
        return gap

    def _topic_id(self) -> str:
        return str(self._consumer._client.cluster.topic_id(self._settings.topics.images) or "")

    def _forget_old_topic(self) -> None:
        """Where the topic of images was made anew: its offsets begin again, and what was unread of the old one is told.

        At once and not with the next images, for another member may get their partition.
        """
        cluster = self._consumer._client.cluster
        known = self._topic_id()
        if known and self._lookout.topic_id and known != self._lookout.topic_id:
            cluster.request_update()  # one of them has been told later than the other
        self._places.forget_left(known)
        lost = self._places.old(known)
        gone = {tp for tp in self._leases if tp not in self._places.of}
        for tp in gone:
            del self._leases[tp]
            self._assigned_anew.add(tp)
        if gone:
            log.warning("%s was made anew: going to its beginning", self._settings.topics.images)
        if not lost:
            return
        letters = [
            letter_of_deleted(tp.topic, tp.partition, why, self._settings.topics.deadletters) for tp, why in lost
        ]
        try:
            if self._exactly_once:
                self._beside_joins(partial(self._publisher.transact, letters, {}, None))
            else:
                self._publisher.send(letters)
        except CLIENT_ERRORS as error:
            log.warning("no dead letter tells what was unread: %s: %s", type(error).__name__, error)
            self._abort()
        for tp, why in lost:
            log.error("partition %d: %s", tp.partition, why)
            metrics.deleted_unread.inc(why.messages)

    def _beside_joins(self, work: Callable[[], None]) -> None:
        self._member.wait_for(self._publish_thread.submit(work))

    def _abort(self) -> None:
        """Leave no open transaction."""
        if self._exactly_once:
            metrics.aborts.inc()
        with broker_answers(self._settings):
            self._beside_joins(self._publisher.renew)

    def _taken(self, partitions: Collection[TopicPartition]) -> None:
        self._assigned_anew.update(partitions)
        self._unnoted.update(partitions)

    def _rewind(self, tp: TopicPartition, gaps: list[Record]) -> bool:
        """Set a partition back to its committed offset, under a new lease; False where that offset may still change.

        What the broker has deleted behind that offset is told in ``gaps``.
        """
        with broker_answers(self._settings):
            within_ms = self._stable_within_ms()
            try:
                committed = self._consumer.committed(tp, metadata=True, timeout_ms=within_ms)
            except KafkaTimeoutError:
                log.info("partition %d: an open transaction may still change its committed offset", tp.partition)
                self._end_left_open()
                return False
            self._unstable_since = None
            start = start_of(self._consumer, tp)
        noted = Attempts.read(committed.metadata if committed else None)
        topic_id = self._topic_id()
        if committed is not None and noted.topic and topic_id and noted.topic != topic_id:
            log.warning("partition %d: offset %d is of a topic that was made anew", tp.partition, committed.offset)
            committed, noted = None, Attempts()
        begin = start if committed is None else committed.offset
        self._consumer.seek(tp, max(begin, start))
        self._places.of[tp] = place = Place(begin, begin, begin, end=begin, topic_id=topic_id)
        self._attempts[tp] = replace(noted, topic=topic_id)
        self._suspect(tp, noted.begun)
        self._assigned_anew.discard(tp)
        self._leases[tp] = next(self._lease_numbers)
        if begin < start:
            place.end = start
            gap = self._places.gap(tp, start, start, self._leases[tp])
            gaps += [gap] if gap else []
        return True

    def _end_left_open(self) -> None:
        if not self._exactly_once:
            return
        try:
            end_left_open(self._settings, own=self._publisher.transactional_id)
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

    def _suspect(self, tp: TopicPartition, begun: int) -> None:
        """Where several members began, and none got past it, everything that can have been in flight is suspect."""
        suspect = begun >= DEATHS_TO_SUSPECT
        window = MOST_BATCHES_IN_FLIGHT * self._settings.stream.batch_images if suspect else 0
        self._suspects_end[tp] = self._places.of[tp].committed + window
        if suspect:
            log.warning(
                "partition %d: %d members began at offset %d and none got past it; taking up the next ones alone",
                tp.partition, begun, self._places.of[tp].committed,
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
                self._beside_joins(partial(self._publisher.transact, (), owned, generation))
            else:
                self._consumer.commit(owned, timeout_ms=NOTE_TIMEOUT_MS)
        except CLIENT_ERRORS as error:
            log.info("no note at the committed offsets: %s: %s", type(error).__name__, error)
            self._abort()

    def _note(self, tp: TopicPartition, offset: int) -> str:
        """The metadata of a commit: among suspects the next one is begun with it."""
        begun = 1 if offset < self._suspects_end.get(tp, 0) else 0
        return Attempts(begun=begun, topic=self._places.of[tp].topic_id).note()

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
