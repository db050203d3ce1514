"""Sessions on real brokers, and what readers of committed messages see of them."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from kafka import TopicPartition

from pipeline.contracts.broker import Outgoing, Record
from pipeline.kafka.clients import make_consumer, make_producer
from pipeline.kafka.session import KafkaSession
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.threads import all_live

apache_only = pytest.mark.parametrize(
    ("plant", "exactly_once"), [pytest.param("apache", True, marks=pytest.mark.apache)], indirect=["plant"]
)
both = pytest.mark.parametrize(
    ("plant", "exactly_once"),
    [pytest.param("apache", True, marks=pytest.mark.apache), ("tansu", False)],
    indirect=["plant"],
)


def prepared(plant: Plant, **sections: dict) -> Settings:
    settings = plant.settings(**sections)
    ensure_topics(settings)
    return settings


def produce(settings: Settings, *values: bytes, topic: str | None = None) -> None:
    # A busy machine's broker is slow, and not away.
    with closing(make_producer(settings, delivery_timeout_ms=60_000, max_block_ms=60_000)) as producer:
        for number, value in enumerate(values):
            producer.send(topic or settings.topics.images, value=value, key=b"k", partition=number % 2).get(timeout=90)


def committed_values(settings: Settings, topic: str, count: int) -> list[bytes]:
    """The first ``count`` values that a reader of committed messages sees, and what comes right behind them."""
    with closing(make_consumer(settings)) as consumer:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        values: list[bytes] = []
        deadline = time.monotonic() + 60
        quiet = 0
        while quiet < 2 and time.monotonic() < deadline:
            found = [message.value for messages in consumer.poll(timeout_ms=250).values() for message in messages]
            values += found
            quiet = quiet + 1 if len(values) >= count and not found else 0
        return values


def collect(session: KafkaSession, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + 60
    while len(records) < count:
        all_live()
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += session.poll(0.2)
    return records


def events_for(settings: Settings, records: list[Record]) -> list[Outgoing]:
    return [Outgoing(settings.topics.events, record.key, record.value, (("ce_id", b"x"),)) for record in records]


@contextmanager
def joined(settings: Settings, *, rank: int = 0, exactly_once: bool = True) -> Iterator[KafkaSession]:
    session = KafkaSession(settings, rank=lambda: rank, exactly_once=exactly_once)
    try:
        yield session
    finally:
        session.close()
