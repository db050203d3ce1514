"""Reading the output topics: events, masks, dead letters, committed ones only."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition

from pipeline.contracts.broker import Record
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, InspectionEvent
from pipeline.errors import BrokerUnavailable
from pipeline.kafka.as_of_now import AsOfNow
from pipeline.kafka.clients import broker_answers, make_consumer
from pipeline.settings import Settings
from pipeline.storage import claims
from pipeline.storage.store import ObjectStore


class Follower:
    """Reads whole topics from the beginning, or from now on, without a group. Used from one thread."""

    def __init__(self, settings: Settings, *topics: str, from_beginning: bool) -> None:
        self._settings = settings
        with broker_answers(settings):
            self._consumer = make_consumer(settings)
            partitions = [tp for topic in topics for tp in assignable(self._consumer, settings, topic)]
            self._consumer.assign(partitions)
            if from_beginning:
                self._consumer.seek_to_beginning(*partitions)
            else:
                self._consumer.seek_to_end(*partitions)
            for tp in partitions:
                self._consumer.position(tp)

    def poll(self, timeout_s: float = 0.2) -> list[Record]:
        """What has come, in order per partition."""
        with broker_answers(self._settings):
            return records_of(self._consumer.poll(timeout_ms=int(timeout_s * 1000)))

    def rest(self, quiet_s: float = 1.0) -> list[Record]:
        """Everything that is there now, whatever comes meanwhile.

        quiet_s: a partition that nothing has come of for so long is read, wherever its end is said to be.
        """
        records: list[Record] = []
        now = AsOfNow(self._consumer, quiet_s)
        while not now.reached():
            records += self.poll()
        return records

    def follow(self, stop: threading.Event) -> Iterator[Record]:
        while not stop.is_set():
            yield from self.poll()

    def close(self) -> None:
        self._consumer.close(autocommit=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def assignable(consumer: KafkaConsumer, settings: Settings, topic: str) -> list[TopicPartition]:
    """The partitions of a topic, waiting a little for one that was made just now.

    Raises:
        BrokerUnavailable: there is no such topic.
    """
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        numbers = consumer.partitions_for_topic(topic)
        if numbers:
            return [TopicPartition(topic, number) for number in sorted(numbers)]
        time.sleep(0.2)
    raise BrokerUnavailable(f"no topic {topic!r} on {settings.kafka.bootstrap_servers}: 'linewatch setup' makes it")


def records_of(fetched: Mapping[TopicPartition, Sequence[Any]]) -> list[Record]:
    """What a poll of a consumer without a group has brought, in order per partition."""
    return [
        Record(tp.topic, tp.partition, m.offset, m.key, m.value, tuple(m.headers or ()), timestamp_ms=m.timestamp)
        for tp, messages in fetched.items()
        for m in messages
    ]


def event_of(record: Record) -> InspectionEvent:
    """The event in a record of the event topic."""
    return InspectionEvent.model_validate_json(record.value or b"")


def picture_of(record: Record, store: ObjectStore, settings: Settings) -> tuple[str, str, bytes]:
    """(event id, "mask" or "heat", PNG) of a record of the mask topic; fetches it where it is a claim check."""
    headers = {name: value.decode() for name, value in record.headers if value is not None}
    identifier, _, kind = headers["ce_id"].rpartition("-")
    data = record.value or b""
    if headers["content-type"] == CLAIM_CONTENT_TYPE:
        data = claims.redeem(data, store, settings.limits, prefix=f"{kind}s/")
    return identifier, kind, data
