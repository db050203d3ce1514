"""What the broker can do, found out by behaviour and not by name."""

import logging
import time
import uuid
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from pipeline.kafka.clients import admin_client, broker_answers, make_consumer, make_producer
from pipeline.settings import Settings

log = logging.getLogger(__name__)
READ_TIMEOUT_S = 8.0


@dataclass(frozen=True)
class Capabilities:
    """What a probe of a broker has shown."""

    aborts_hidden: bool
    end_offsets_exact: bool

    @property
    def delivery(self) -> str:
        return "exactly_once" if self.aborts_hidden else "at_least_once"

    @property
    def exact(self) -> bool:
        """Whether a reader of committed messages may count on the offsets that the broker tells."""
        return self.aborts_hidden and self.end_offsets_exact

    def describe(self) -> str:
        if self.aborts_hidden:
            return "exactly once (the broker hides aborted transactions)"
        return "at least once, with deterministic event ids (the broker shows aborted transactions to readers)"


def probe(settings: Settings) -> Capabilities:
    """Abort one transaction, commit another, and read: a topic of its own is made and removed.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    name = f"{settings.topics.prefix}.probe.{uuid.uuid4().hex[:8]}"
    with admin_client(settings) as admin:
        admin.create_topics([NewTopic(name, 1, settings.topics.replication_factor)])
        try:
            return _probe(settings, name)
        finally:
            try:
                admin.delete_topics([name])
            except KafkaError as error:
                log.info("the probe's topic %s stays: %s", name, error)


def _probe(settings: Settings, topic: str) -> Capabilities:
    with broker_answers(settings):
        producer = make_producer(settings, transactional_id=f"{settings.kafka.group}-{topic}")
        try:
            producer.init_transactions()
            producer.begin_transaction()
            producer.send(topic, b"aborted").get(timeout=10)
            producer.abort_transaction()
            producer.begin_transaction()
            producer.send(topic, b"committed").get(timeout=10)
            producer.commit_transaction()
        except (KafkaError, AssertionError, RuntimeError) as error:
            log.info("transactions do not work on this broker: %s", error)
            return Capabilities(aborts_hidden=False, end_offsets_exact=False)
        finally:
            producer.close(timeout=5)
    values = _read(settings, topic)
    with broker_answers(settings):
        consumer = make_consumer(settings)
        try:
            tp = TopicPartition(topic, 0)
            end = consumer.end_offsets([tp])[tp]
        finally:
            consumer.close()
    # Two records and two control records; a broker without control records would end at 2.
    return Capabilities(aborts_hidden=values == [b"committed"], end_offsets_exact=end in (2, 4))


def _read(settings: Settings, topic: str) -> list[bytes]:
    with broker_answers(settings):
        consumer = make_consumer(settings)
        try:
            tp = TopicPartition(topic, 0)
            consumer.assign([tp])
            consumer.seek_to_beginning(tp)
            values: list[bytes] = []
            deadline = time.monotonic() + READ_TIMEOUT_S
            while time.monotonic() < deadline and b"committed" not in values:
                for messages in consumer.poll(timeout_ms=200).values():
                    values += [message.value for message in messages]
            return values
        finally:
            consumer.close()
