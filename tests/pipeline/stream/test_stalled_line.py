"""A line that can't go on says so, on a real broker, while eight cameras send; and goes on once the cause is gone."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.admin import ACLOperation, ResourceType
from kafka.errors import UnsupportedCodecError
from kafka.record.default_records import DefaultRecordBatch

from infra.local.apache_kafka import find_apache
from infra.local.seaweedfs import SeaweedFS, find_seaweedfs
from model import ModelBundle
from pipeline.kafka.clients import admin_client, make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.store import S3Store
from pipeline.telemetry import metrics
from tests.pipeline.alone import ACCESS, SECRET, alone
from tests.pipeline.guarded import CAMERAS, Cameras, GuardedKafka, camera, forbidden, set_limit, stalled, well
from tests.pipeline.line import running
from tests.pipeline.real_line import SMALL, RealLine
from tests.pipeline.tiny import message, publish

pytestmark = [pytest.mark.servers, pytest.mark.apache]
TOLD_WITHIN_S = 15
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("guarded")
    with (
        alone(GuardedKafka, find_apache, folder / "kafka", folder / "kafka.log") as broker,
        alone(SeaweedFS, find_seaweedfs, folder / "s3", folder / "s3.log") as store,
    ):
        yield broker.endpoint, store.endpoint


@pytest.fixture
def line(servers: tuple[str, str], tiny_bundle: ModelBundle, request: pytest.FixtureRequest) -> Iterator[RealLine]:
    name = f"stalled{next(NUMBERS)}"
    session_s = 3 if request.node.get_closest_marker("alone") else 10
    settings = Settings(
        **{
            **SMALL,
            "stream": {"batch_images": 4, "heat_maps": "always", "stall_s": 5.0},
            "kafka": {
                "bootstrap_servers": servers[0],
                "group": name,
                "delivery": "exactly_once",
                "session_timeout_ms": 1000 * session_s,
            },
            "topics": {"prefix": name, "partitions": CAMERAS},
            "s3": {
                "endpoint": f"http://{servers[1]}",
                "bucket": f"bucket-{name}",
                "access_key": ACCESS,
                "secret_key": SECRET,
            },
        }
    )
    ensure_topics(settings)
    store = S3Store(settings.s3)
    store.ensure_bucket()
    publish(store, tiny_bundle)
    with running(RealLine(settings, store)) as started:
        yield started


def has_done_all(line: RealLine, cameras: Cameras, eventually: Callable[..., None]) -> None:
    cameras.end()
    eventually(lambda: line.pending() == 0, within_s=90, what="an outcome for each image")
    assert line.worker.trouble() is None
    eventually(well(line), within_s=60)
    audit = line.audit()
    assert (audit.total("lost"), audit.total("doubled"), audit.total("pending")) == (0, 0, 0), audit.troubles
    assert Counter(event.image_id for event in line.events()).keys() >= set(cameras.sent)


@pytest.mark.alone
def test_a_codec_that_is_missing_stalls_its_partition_and_no_other_camera(
    line: RealLine, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: DefaultRecordBatch, codec: int) -> None:
        raise UnsupportedCodecError(f"Libraries for codec {codec} not found")

    with Cameras(line.settings) as cameras:
        eventually(lambda: line.committed() > 20, within_s=60)
        with monkeypatch.context() as patch:
            patch.setattr(DefaultRecordBatch, "_assert_has_codec", missing)
            odd = message("img-snappy", bytes(5000), camera=camera(3))
            with closing(make_producer(line.settings, compression_type="snappy")) as producer:
                sent = producer.send(odd.topic.replace("linewatch", line.settings.topics.prefix), odd.value, odd.key,
                                     list(odd.headers), partition=3).get(timeout=15)  # fmt: skip
            begun = time.monotonic()
            eventually(stalled(line, f"offsets {sent.offset} to {sent.offset} can't be read", 3), within_s=60)
            assert time.monotonic() - begun < TOLD_WITHIN_S
            assert "compressed with snappy" in line.worker.stalls()[0].reason
            assert "install python-snappy" in line.worker.stalls()[0].reason
            before = line.committed()
            eventually(lambda: line.committed() > before + 20, within_s=60, what="the other cameras go on")
            assert [one.partition for one in line.worker.stalls()] == [3]
        eventually(well(line), within_s=60, what="it goes on by itself")
        has_done_all(line, cameras, eventually)


def test_pictures_too_large_for_their_topic_go_through_s3_and_no_camera_waits(
    line: RealLine, eventually: Callable[..., None]
) -> None:
    with Cameras(line.settings) as cameras:
        eventually(lambda: line.committed() > 20, within_s=60)
        set_limit(line.settings, line.settings.topics.masks, 700)
        before = line.committed()
        eventually(lambda: line.committed() > before + 40, within_s=60)
        has_done_all(line, cameras, eventually)
    audit = line.audit()
    assert audit.right, audit.troubles
    assert (audit.deadletters, audit.heat_maps) == ({}, audit.total("images"))
    assert len(list(S3Store(line.settings.s3).keys("heats/"))) >= 40


@pytest.mark.alone
def test_a_right_that_is_taken_away_is_named_and_the_line_goes_on_once_it_is_back(
    line: RealLine, eventually: Callable[..., None]
) -> None:
    topics, group = line.settings.topics, line.settings.kafka.group
    rights = (
        (ACLOperation.WRITE, ResourceType.TOPIC, topics.masks, f"topic {topics.masks} "),
        (ACLOperation.READ, ResourceType.TOPIC, topics.images, f"topic {topics.images} "),
        (ACLOperation.READ, ResourceType.GROUP, group, "be a member of the consumer group"),
        (ACLOperation.WRITE, ResourceType.TRANSACTIONAL_ID, f"{group}-0", "write in transactions"),
    )
    with Cameras(line.settings) as cameras:
        for operation, kind, name, told in rights:
            before = line.committed()
            eventually(lambda before=before: line.committed() > before + 16, within_s=60)
            with forbidden(line.settings, operation, kind, name):
                begun = time.monotonic()
                eventually(stalled(line, told), within_s=60)
                assert time.monotonic() - begun < TOLD_WITHIN_S
                assert "the account may not" in line.worker.stalls()[0].reason
            eventually(well(line), within_s=60, what="it goes on by itself")
        has_done_all(line, cameras, eventually)


@pytest.mark.alone
def test_a_topic_of_masks_that_is_gone_is_named_and_the_line_goes_on_once_it_is_back(
    line: RealLine, eventually: Callable[..., None]
) -> None:
    masks = line.settings.topics.masks
    with Cameras(line.settings) as cameras:
        eventually(lambda: line.committed() > 20, within_s=60)
        with admin_client(line.settings) as admin:
            admin.delete_topics([masks])
        begun = time.monotonic()
        eventually(stalled(line, f"topic {masks} is gone"), within_s=60)
        assert time.monotonic() - begun < TOLD_WITHIN_S
        ensure_topics(line.settings)
        eventually(well(line), within_s=60, what="it goes on by itself")
        has_done_all(line, cameras, eventually)


def test_a_topic_of_images_made_anew_under_load_has_an_outcome_for_each_of_its_images(
    line: RealLine, eventually: Callable[..., None]
) -> None:
    images = line.settings.topics.images
    with Cameras(line.settings) as cameras:
        eventually(lambda: line.committed() > 60, within_s=60)
        with admin_client(line.settings) as admin:
            admin.delete_topics([images])
        eventually(stalled(line, f"topic {images} is gone"), within_s=60)
        first = len(cameras.sent)
        ensure_topics(line.settings)
        eventually(lambda: len(cameras.sent) > first + 120, within_s=60, what="cameras go on")
        cameras.end()
        eventually(lambda: line.pending() == 0, within_s=90, what="an outcome for each image")
        audit = line.audit()
        told = audit.troubles["deleted_unread"]
        assert set(audit.off) <= {"lost", "deleted_unread"}, audit.troubles
        assert audit.total("lost") == told
        assert audit.total("images") >= 120
        seen = Counter(event.image_id for event in line.events())
        assert not [image for image in cameras.sent[first + 1 :] if seen[image] != 1]
        assert len(cameras.sent[: first + 1]) - len(seen.keys() & set(cameras.sent[: first + 1])) <= told + 1


@pytest.mark.alone
def test_what_is_deleted_unread_is_the_same_number_in_metric_log_and_audit(
    line: RealLine, eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    before = metrics.deleted_unread._value.get()
    settings = line.settings
    with Cameras(settings) as cameras:
        eventually(lambda: line.committed() > 20, within_s=60)
        with forbidden(settings, ACLOperation.WRITE, ResourceType.TOPIC, settings.topics.events):
            eventually(stalled(line, "the account may not"), within_s=60)
            sent = len(cameras.sent)
            eventually(lambda: len(cameras.sent) > sent + 80, within_s=60)
            standing = line.audit()
            assert standing.right
            with admin_client(settings) as admin:
                ends = {TopicPartition(settings.topics.images, number): -1 for number in range(3)}
                admin.delete_records(ends)
            gone = line.audit()
            assert gone.troubles["deleted_unread"] == gone.total("lost") > 0
            # What the worker had in hand is not lost, until a commit of it is: then it is read again, and is gone.
            lost = metrics.commits_lost._value.get()
            eventually(lambda: metrics.commits_lost._value.get() >= lost + 2, within_s=60)
        cameras.end()
        eventually(lambda: line.pending() == 0, within_s=90, what="an outcome for each image that is left")
    audit = line.audit()
    told = sum(int(one.getMessage().split("has deleted ")[1].split()[0]) for one in caplog.records
               if "dead letter: DeletedUnread" in one.getMessage())  # fmt: skip
    lost = audit.total("lost")
    assert lost >= gone.total("lost") > 0
    assert audit.troubles["deleted_unread"] == lost == told == metrics.deleted_unread._value.get() - before
    assert len(cameras.sent) - len({event.image_id for event in line.events()}) == lost
    assert set(audit.off) == {"lost", "deleted_unread"}
