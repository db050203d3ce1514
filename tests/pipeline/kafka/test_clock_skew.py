"""Cameras whose clocks are wrong: they are told so by the captured time alone, and nothing else goes by them."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import NewTopic

from infra.local.apache_kafka import ApacheKafka, find_apache
from infra.local.program import Say
from jobs.audit.window import Window
from jobs.past.retained import Past
from model import ModelBundle
from pipeline.contracts.events import event_id
from pipeline.fakes import MemoryStore
from pipeline.kafka.clients import admin_client, make_consumer, make_producer
from pipeline.kafka.topics import WEEK_MS, ensure_topics
from pipeline.settings import Settings
from pipeline.telemetry import metrics
from tests.conftest import Plant
from tests.pipeline.alone import alone
from tests.pipeline.line import running
from tests.pipeline.real_line import SMALL, RealLine, has_done
from tests.pipeline.tiny import PRODUCT, message, publish, texture

pytestmark = [pytest.mark.servers, pytest.mark.apache]
HOUR, YEAR = timedelta(hours=1), timedelta(days=365)
# By default Kafka refuses a message that is dated more than an hour ahead, so a minute more is another case.
CLOCKS = {
    "right": timedelta(0),
    "fast": HOUR,
    "faster": HOUR + timedelta(minutes=1),
    "slow": -HOUR,
    "year-fast": YEAR,
    "year-slow": -YEAR,
}


def send(settings: Settings, numbers: range) -> dict[str, datetime]:
    """An image of each camera and number, dated by its clock in message and header. Returns captured by image id."""
    captured: dict[str, datetime] = {}
    with closing(make_producer(settings)) as producer:
        for number in numbers:
            for camera, off in CLOCKS.items():
                now = datetime.now(UTC) + off
                image = message(f"{camera}-{number}", texture(number), camera=f"/plant/{camera}", time=now)
                captured[f"{camera}-{number}"] = now
                producer.send(
                    settings.topics.images, image.value, image.key, list(image.headers), partition=number % 2,
                    timestamp_ms=int(now.timestamp() * 1000),
                ).get(timeout=15)  # fmt: skip
    return captured


def between() -> datetime:
    """A moment after all that was sent before, and before all that is sent afterwards, to the millisecond."""
    time.sleep(0.005)
    moment = datetime.now(UTC)
    time.sleep(0.005)
    return moment


def test_wrong_clocks_of_cameras_change_the_captured_time_and_nothing_else(
    apache: Plant, tiny_bundle: ModelBundle, eventually: Callable[..., None]
) -> None:
    settings = apache.settings(**SMALL, kafka={"delivery": "exactly_once"})
    ensure_topics(settings)
    store = MemoryStore()
    version = publish(store, tiny_bundle)
    line = RealLine(settings, store)
    begun = between()
    first = send(settings, range(4))
    middle = between()
    second = send(settings, range(4, 8))
    captured = first | second
    latency_s = metrics.latency_seconds.labels(PRODUCT)._sum.get()
    with running(line):
        eventually(has_done(line, len(captured)), within_s=60)
    ended = between()

    events = {event.event_id: event for event in line.events()}
    assert set(events) == {event_id(image, version) for image in captured}
    for event in events.values():
        assert event.times.captured == captured[event.image_id], "what the camera says"
        assert begun < event.times.received <= event.times.scored <= event.times.published < ended
    assert metrics.latency_seconds.labels(PRODUCT)._sum.get() > latency_s, "of a fast clock 0, and never less"

    def counted(window: Window) -> tuple[int, int, int]:
        audit = line.audit(window)
        assert audit.right, audit.troubles
        return audit.total("images"), audit.total("events"), audit.masks

    assert counted(Window.between(begun, ended)) == (48, 48, 48)
    assert counted(Window.between(begun, middle)) == (24, 24, 24)
    assert counted(Window.between(middle, None)) == (24, 24, 24)
    with Past(settings, settings.topics.images, exact=True, since=middle) as past:
        found = Counter(dict(record.headers)["ce_id"].decode() for batch in past.batches() for record in batch)
    assert found == Counter(second.keys()), "what rescore --since takes"


class Housekeeping(ApacheKafka):
    """Deletes what is too old at once, and not every five minutes."""

    def prepare(self, say: Say) -> None:
        super().prepare(say)
        with (self.folder / "server.properties").open("a", encoding="ascii") as properties:
            properties.write("log.retention.check.interval.ms=100\nlog.initial.task.delay.ms=100\n")


def test_retention_takes_no_image_of_a_camera_whose_clock_is_a_year_slow(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with alone(Housekeeping, find_apache, tmp_path / "kafka", tmp_path / "log") as server:
        settings = Settings.from_values({"kafka": {"bootstrap_servers": server.endpoint}, "topics": {"partitions": 1}})
        ensure_topics(settings)
        image = message("img-0", texture(0))
        slow_ms = int((datetime.now(UTC) - YEAR).timestamp() * 1000)
        witness, partition = TopicPartition("by-the-senders-clock", 0), TopicPartition(settings.topics.images, 0)
        with admin_client(settings) as admin:
            admin.create_topics([NewTopic(witness.topic, 1, 1, topic_configs={"retention.ms": str(WEEK_MS)})])
        with closing(make_producer(settings)) as producer, closing(make_consumer(settings)) as consumer:

            def start(tp: TopicPartition) -> int:
                offset: int = consumer.beginning_offsets([tp])[tp]
                return offset

            producer.send(partition.topic, image.value, image.key, timestamp_ms=slow_ms).get(timeout=15)
            for count in (1, 2):  # the second one is taken by a round that began after the image came
                producer.send(witness.topic, b"old", timestamp_ms=slow_ms).get(timeout=15)
                eventually(lambda count=count: start(witness) == count, what="a message of another topic is deleted")
            assert start(partition) == 0
            assert consumer.end_offsets([partition])[partition] == 1
