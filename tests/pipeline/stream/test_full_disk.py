"""A disk that is full, under S3 and under the broker: the stream stands, loses nothing, and goes on with room again."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaError

from infra.local.apache_kafka import ApacheKafka, find_apache
from infra.local.errors import NotReady
from infra.local.seaweedfs import SeaweedFS, find_seaweedfs
from model import ModelBundle, Scored
from pipeline.errors import BrokerUnavailable
from pipeline.fakes import MemoryStore
from pipeline.kafka.clients import make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.store import S3Store
from tests.conftest import Plant
from tests.pipeline.alone import ACCESS, SECRET, alone
from tests.pipeline.line import running
from tests.pipeline.real_line import SMALL, RealLine, has_done
from tests.pipeline.small_disk import small_disk
from tests.pipeline.tiny import message, publish, texture

pytestmark = [pytest.mark.servers, pytest.mark.apache]
SESSION_S = 10.0
# Less, and SeaweedFS has no room for the volumes that it makes for each bucket.
STORE_MIB = 256
BROKER_MIB = 96


def test_a_full_disk_under_s3_is_waited_for_and_no_mask_is_missing_afterwards(
    apache: Plant, tiny_bundle: ModelBundle, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with (
        small_disk(tmp_path / "disk", STORE_MIB) as disk,
        alone(SeaweedFS, find_seaweedfs, disk.folder / "s3", tmp_path / "log") as server,
    ):
        settings = apache.settings(
            **{**SMALL, "stream": {"batch_images": 4, "heat_maps": "always"}},
            kafka={"delivery": "exactly_once", "session_timeout_ms": int(1000 * SESSION_S)},
            s3={"endpoint": f"http://{server.endpoint}", "access_key": ACCESS, "secret_key": SECRET, "timeout_s": 30.0},
            limits={"inline_bytes": 10},
        )
        ensure_topics(settings)
        store = S3Store(settings.s3)
        store.ensure_bucket()
        publish(store, tiny_bundle)
        images = [message(f"img-{n:02d}", texture(n % 7), camera=f"/plant/cam{n % 3}") for n in range(48)]
        line = RealLine(settings, store)
        with running(line):
            line.send(images[:8])
            eventually(has_done(line, 8), within_s=60)
            disk.fill()
            line.send(images[8:])
            eventually(lambda: line.worker.waiting_for == "S3", within_s=60)
            polls = line.polls
            time.sleep(1.2 * SESSION_S)
            eventually(lambda: line.polls > polls + 20, what="it polls on, or the group would take it for dead")
            assert line.worker.trouble() is None
            assert "refused to write" in line.worker.wait_reason
            assert line.committed() < len(images)
            disk.make_room()
            server.restart()  # SeaweedFS, once its disk was full, refuses to write until then
            eventually(has_done(line, len(images)), within_s=60, what="an outcome for each image")
            assert (len(line.sessions), line.losses) == (1, 0), "it stayed a member"
        audit = line.audit()
        assert audit.right, audit.troubles
        assert (audit.total("images"), audit.total("events"), audit.deadletters) == (48, 48, {})
        assert (audit.masks, audit.heat_maps, audit.troubles["objects_missing"]) == (48, 48, 0)


class PatientCamera:
    """Sends one image after another, each until it is acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.acknowledged: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def __enter__(self) -> "PatientCamera":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(KafkaError, BrokerUnavailable):
                producer = make_producer(self.settings, linger_ms=0)
                try:
                    while not self._stop.is_set():
                        self._send(producer)
                finally:
                    _close(producer)

    def _send(self, producer: KafkaProducer) -> None:
        number = len(self.acknowledged)
        image = message(f"img-{number:04d}", texture(number % 7, spot=True), camera=f"/plant/cam{number % 3}")
        producer.send(self.settings.topics.images, image.value, image.key, list(image.headers)).get(timeout=30)
        self.acknowledged.append(f"img-{number:04d}")
        self._stop.wait(0.01)


def _close(producer: KafkaProducer) -> None:
    try:
        producer.close(timeout=1)
    except KafkaError:
        producer._sender.force_close()  # it would try for ever


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker gives a commit up after three seconds instead of fifteen, and a broker too."""
    soon = partial(
        make_producer,
        request_timeout_ms=2000,
        delivery_timeout_ms=3000,
        max_block_ms=5000,
        bootstrap_timeout_ms=3000,
    )
    monkeypatch.setattr("pipeline.kafka.publisher.make_producer", soon)
    monkeypatch.setattr("pipeline.kafka.publisher.FLUSH_TIMEOUT_S", 4)


def test_a_full_disk_under_the_broker_costs_no_acknowledged_image_and_doubles_none(
    tiny_bundle: ModelBundle, tmp_path: Path, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    with (
        small_disk(tmp_path / "disk", BROKER_MIB) as disk,
        alone(ApacheKafka, find_apache, disk.folder / "kafka", tmp_path / "log") as server,
    ):
        settings = Settings(
            **{
                **SMALL,
                "kafka": {"bootstrap_servers": server.endpoint, "delivery": "exactly_once"},
                "topics": {"partitions": 2},
                "s3": {"access_key": "unused", "secret_key": "unused"},
            }
        )
        ensure_topics(settings)
        store = MemoryStore()
        publish(store, tiny_bundle)
        line = RealLine(settings, store)
        score, held, go_on = line.inspector.score, threading.Event(), threading.Event()

        def gated(*args: Any) -> list[Scored]:
            if not go_on.is_set():
                held.set()
                assert go_on.wait(120)
            return score(*args)

        go_on.set()
        monkeypatch.setattr(line.inspector, "score", gated)
        with running(line):
            with PatientCamera(settings) as camera:
                eventually(has_done(line, 40), within_s=60)
                go_on.clear()
                assert held.wait(60), "it has images in hand when the broker ends"
                disk.fill()
                eventually(lambda: not server.alive, within_s=60, what="a broker without a disk ends")
                go_on.set()
                with pytest.raises((NotReady, OSError)):
                    server.start()
                eventually(lambda: line.worker.waiting_for == "Kafka", within_s=60)
                assert line.worker.trouble() is None
                disk.make_room()
                server.start()
                before = len(camera.acknowledged)
                eventually(lambda: len(camera.acknowledged) > before + 20, within_s=90, what="the camera goes on")
            eventually(lambda: line.pending() == 0, within_s=90, what="an outcome for each image")
        audit = line.audit()
        assert audit.right, audit.troubles
        assert audit.total("images") >= len(camera.acknowledged) > 60
        seen = Counter(event.image_id for event in line.events())
        assert not set(camera.acknowledged) - set(seen)
        assert line.worker._faults == 0
