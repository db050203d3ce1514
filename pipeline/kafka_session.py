"""A member of the consumer group on a real broker, with publish-and-commit in one transaction."""

import itertools
import logging
from collections.abc import Collection, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from pipeline.broker import Outgoing, Record, offsets_after
from pipeline.errors import CommitLost
from pipeline.kafka_clients import broker_answers, make_consumer, make_producer
from pipeline.settings import Settings

log = logging.getLogger(__name__)
FLUSH_TIMEOUT_S = 15


class KafkaSession:
    """Exactly once where the broker's transactions work, else at least once (publish, flush, commit)."""

    def __init__(self, settings: Settings, *, rank: int, exactly_once: bool) -> None:
        """Joins the group.

        Args:
            rank: of the replica. With the group's name it makes the transactional id, so that a restarted replica
                fences its own past and ends its open transaction at once.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        self._settings = settings
        self._transactional_id = f"{settings.kafka.group}-{rank}" if exactly_once else None
        self._leases: dict[TopicPartition, int] = {}
        self._assigned_anew: set[TopicPartition] = set()
        self._lease_numbers = itertools.count(1)
        self._paused = False
        with broker_answers(settings):
            self._producer = self._open_producer()
            self._consumer = self._open_consumer()

    # What the worker calls

    def poll(self, timeout_s: float) -> list[Record]:
        with broker_answers(self._settings):
            fetched = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        # kafka-python keeps the position of a partition that stays with its member in a rebalance, and thereby skips
        # what was fetched and not committed. Not within the callback: it runs in the client's own loop.
        anew = set(self._assigned_anew)
        if anew:
            self._rewind(anew)
            self._assigned_anew -= anew
        return [self._record(tp, one) for tp, messages in fetched.items() if tp not in anew for one in messages]

    def owns(self, record: Record) -> bool:
        return self._leases.get(TopicPartition(record.topic, record.partition)) == record.lease

    def commit(self, outgoing: Sequence[Outgoing], finished: Sequence[Record]) -> None:
        offsets = {
            TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)
            for (topic, partition), offset in offsets_after(finished).items()
        }
        try:
            if self._transactional_id:
                self._producer.begin_transaction()
                self._send(outgoing)
                self._producer.send_offsets_to_transaction(offsets, self._consumer.group_metadata())
                self._producer.commit_transaction()
            else:
                self._send(outgoing)
                self._consumer.commit(offsets)
        # kafka-python raises AssertionError and RuntimeError too, from a producer in a state that forbids the call.
        except (KafkaError, AssertionError, RuntimeError, OSError) as error:
            log.warning("commit lost (%s: %s); going back to the committed offsets", type(error).__name__, error)
            self._abort()
            self._rewind(self._consumer.assignment())
            raise CommitLost(f"{type(error).__name__}: {error}") from error

    def pause(self) -> None:
        if not self._paused:
            self._consumer.pause(*self._consumer.assignment())
            self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._consumer.resume(*self._consumer.paused())
            self._paused = False

    def close(self) -> None:
        for name, end in (("producer", self._close_producer), ("consumer", self._close_consumer)):
            try:
                end()
            except (KafkaError, AssertionError, RuntimeError, OSError) as error:
                log.info("closing the %s: %s: %s", name, type(error).__name__, error)

    # Partitions come and go inside poll(), in the worker's thread

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._assigned_anew.update(partitions)
        if self._paused and partitions:
            self._consumer.pause(*partitions)
        log.info("assigned %s", sorted(tp.partition for tp in partitions))

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self._leases.pop(tp, None)
            self._assigned_anew.discard(tp)
        log.info("revoked %s", sorted(tp.partition for tp in partitions))

    # Inside

    def _send(self, outgoing: Sequence[Outgoing]) -> None:
        futures = [
            self._producer.send(message.topic, value=message.value, key=message.key, headers=list(message.headers))
            for message in outgoing
        ]
        self._producer.flush(timeout=FLUSH_TIMEOUT_S)
        for future in futures:
            future.get(timeout=FLUSH_TIMEOUT_S)

    def _abort(self) -> None:
        """Leave no open transaction; a producer that can't abort is replaced, which fences it."""
        try:
            if self._transactional_id:
                self._producer.abort_transaction()
                return
        except (KafkaError, AssertionError, RuntimeError, OSError) as error:
            log.info("abort failed (%s); opening a new producer", type(error).__name__)
        try:
            self._close_producer()
        except (KafkaError, AssertionError, RuntimeError, OSError) as error:
            log.info("closing the producer: %s", type(error).__name__)
        with broker_answers(self._settings):
            self._producer = self._open_producer()

    def _rewind(self, partitions: Collection[TopicPartition]) -> None:
        """Set owned partitions back to their committed offsets, under a new lease."""
        with broker_answers(self._settings):
            for tp in list(partitions):
                self._leases[tp] = next(self._lease_numbers)
                committed = self._consumer.committed(tp)
                if committed is None:
                    self._consumer.seek_to_beginning(tp)
                else:
                    self._consumer.seek(tp, committed)

    def _record(self, tp: TopicPartition, message: Any) -> Record:
        return Record(
            topic=tp.topic,
            partition=tp.partition,
            offset=message.offset,
            key=message.key,
            value=message.value,
            headers=tuple(message.headers or ()),
            timestamp_ms=message.timestamp,
            lease=self._leases.get(tp, 0),
        )

    def _open_producer(self) -> KafkaProducer:
        options: dict[str, Any] = {}
        if self._transactional_id:
            options = {
                "transactional_id": self._transactional_id,
                "transaction_timeout_ms": self._settings.kafka.transaction_timeout_ms,
            }
        producer = make_producer(self._settings, **options)
        if self._transactional_id:
            producer.init_transactions()
        return producer

    def _open_consumer(self) -> KafkaConsumer:
        consumer = make_consumer(
            self._settings,
            group_id=self._settings.kafka.group,
            session_timeout_ms=self._settings.kafka.session_timeout_ms,
            heartbeat_interval_ms=max(300, self._settings.kafka.session_timeout_ms // 3),
            max_poll_records=self._settings.stream.batch_images * 2,
        )
        consumer.subscribe([self._settings.topics.images], listener=_Listener(self))
        return consumer

    def _close_producer(self) -> None:
        try:
            self._producer.close(timeout=2)
        except KafkaError:
            # close() flushes first and gives up when the broker is away, leaving its sender thread trying for ever.
            self._producer._sender.force_close()
            raise

    def _close_consumer(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=3000)


class _Listener(ConsumerRebalanceListener):
    def __init__(self, session: KafkaSession) -> None:
        self._session = session

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._session.assigned(list(assigned))

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._session.revoked(list(revoked))
