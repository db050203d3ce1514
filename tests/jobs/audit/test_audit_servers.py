"""An audit of what real workers wrote to real servers, and of what was spoilt afterwards."""

import json
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.audit import log as logs
from jobs.audit.log import Log, committed_offsets
from jobs.cli import main
from jobs.line.replay import replay
from model import ModelBundle
from pipeline.contracts.broker import Outgoing
from pipeline.errors import BrokerError
from pipeline.kafka.capabilities import probe
from pipeline.kafka.clients import make_producer
from pipeline.kafka.header_names import HeaderName
from pipeline.kafka.session import KafkaSession
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker
from tests.conftest import Plant
from tests.jobs.line.test_stream_jobs import as_environment, both, photographs, plant, prepared, read, send
from tests.pipeline.tiny import message, publish

__all__ = ["plant"]
pytestmark = pytest.mark.servers


def audited(*options: str) -> tuple[Result, dict]:
    result = CliRunner().invoke(main, ["audit", "--json", "audit.json", *options])
    return result, json.loads(Path("audit.json").read_text())


@both
def test_a_real_stream_is_right_until_it_is_spoilt(
    plant: Plant, tiny_bundle: ModelBundle, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = prepared(
        plant,
        limits={"inline_bytes": 10},  # images and masks travel through S3
        stream={"batch_images": 4, "heat_maps": "always"},
        engine={"device": "cpu", "threads": 1},
    )
    store, topics = plant.store(settings), settings.topics
    publish(store, tiny_bundle)
    exactly_once = probe(settings).aborts_hidden
    for camera in ("/plant/cam1", "/plant/cam2"):
        replay(settings, store, photographs(4, camera[-4:]), product="bottle", camera=camera, fps=200)
    broken = message("broken", b"no image")
    send(settings, [Outgoing(topics.images, broken.key, broken.value, broken.headers)])
    open_session = partial(KafkaSession, settings, rank=lambda: 0, exactly_once=exactly_once)
    worker = StreamWorker(Inspector(settings, store), open_session)
    worker.start()

    def committed() -> int:
        return sum(offset or 0 for offset in committed_offsets(settings, topics.images, (0, 1)).values())

    try:
        eventually(lambda: committed() == 9, within_s=60)
    finally:
        worker.stop()

    as_environment(settings, plant, monkeypatch)
    result, figures = audited()
    assert result.exit_code == 0, result.output
    assert (figures["images"], figures["events"], figures["deadletters"]) == (9, 8, {"UnsupportedFormat": 1})
    assert (figures["masks"], figures["heat_maps"], figures["pending"], figures["right"]) == (8, 8, 0, True)
    assert set(figures["longest_gap_s"]) == {"/plant/cam1", "/plant/cam2"}

    event = read(settings, topics.events)[0]
    send(settings, [event, Outgoing(topics.images, b"k", b"not read yet")])
    (key,) = [key for key in store.keys("masks/") if dict(event.headers)["ce_id"].decode() in key]
    store._client.remove_object(store.bucket, key)
    result, figures = audited("--since", "1h")
    assert result.exit_code == 1
    assert (figures["doubled_same_id"], figures["objects_missing"], figures["pending"]) == (1, 1, 1)
    assert figures["off"] == ["doubled_same_id", "objects_missing"] if exactly_once else ["objects_missing"]
    assert figures["examples"]["doubled_same_id"][0]["image_id"] == dict(event.headers)["ce_imageid"].decode()
    result, figures = audited("--until", "1h")
    assert (result.exit_code, figures["images"], figures["pending"]) == (0, 0, 0)


@pytest.mark.apache
def test_a_log_is_read_to_its_end_past_control_records_and_open_transactions(
    apache: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = prepared(apache, kafka={"transaction_timeout_ms": 1000})
    topic = settings.topics.events

    def values() -> list[bytes | None]:
        with Log(settings, topic) as log:
            return [record.value for record in log.everything()]

    with closing(make_producer(settings, transactional_id="audit-test", transaction_timeout_ms=60_000)) as producer:
        producer.init_transactions()
        for value, end in ((b"a", producer.commit_transaction), (b"b", producer.abort_transaction)):
            producer.begin_transaction()
            producer.send(topic, value, partition=0).get(timeout=10)
            end()
        assert values() == [b"a"]
        producer.begin_transaction()
        producer.send(topic, b"c", partition=0).get(timeout=10)
        monkeypatch.setattr(logs, "GRACE_S", 0.0)
        with pytest.raises(
            BrokerError, match=r"events partition 0 stands still at offset 4 of 5 .*a transaction is open"
        ):
            values()
        monkeypatch.setattr(logs, "GRACE_S", 20.0)
        soon = threading.Timer(1.0, producer.commit_transaction)
        soon.start()
        assert values() == [b"a", b"c"]
        soon.join()

    odd = HeaderName(b"\xff".decode(errors="surrogateescape"))
    with closing(make_producer(settings)) as producer:
        producer.send(topic, b"d", headers=[(odd, b"x")], partition=0).get(timeout=60)
    assert values() == [b"a", b"c", b"d"], "whatever its headers are named"
