"""An S3 that answers late, and one that refuses writes: images wait for it, and none is lost."""

import logging
import time
from collections.abc import Callable, Iterator

import pytest

from model import ModelBundle
from pipeline.contracts.events import CLAIM_CONTENT_TYPE
from pipeline.errors import StoreUnavailable
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import S3, Settings
from pipeline.storage import claims
from pipeline.storage.store import S3Store
from pipeline.telemetry import metrics
from tests.conftest import Plant
from tests.pipeline.line import running
from tests.pipeline.real_line import SMALL, RealLine, has_done
from tests.pipeline.s3_proxy import S3Proxy, s3_proxy
from tests.pipeline.tiny import message, publish, texture

SESSION_S = 10.0
LATE_S = 12.0  # later than a session lasts
IMAGES = 8


@pytest.fixture
def proxy(apache: Plant) -> Iterator[S3Proxy]:
    with s3_proxy(apache.servers.s3_endpoint) as proxy:
        yield proxy


def prepared(apache: Plant, proxy: S3Proxy, bundle: ModelBundle, **sections: dict) -> Settings:
    """With a model in the store, and all images on one partition."""
    settings = apache.settings(
        **{**SMALL, **sections},
        kafka={"delivery": "exactly_once", "session_timeout_ms": int(1000 * SESSION_S)},
        topics={"partitions": 1},
        s3={"endpoint": proxy.url, "timeout_s": 60.0},
    )
    ensure_topics(settings)
    publish(apache.store(settings), bundle)
    return settings


def waits() -> float:
    return metrics.waits.labels("S3")._value.get()


@pytest.mark.servers
@pytest.mark.apache
def test_an_s3_that_answers_in_12_s_is_slow_and_nothing_else(
    apache: Plant, proxy: S3Proxy, tiny_bundle: ModelBundle, eventually: Callable[..., None]
) -> None:
    """Images come from it and masks go to it, at a session that is shorter than one answer."""
    settings = prepared(
        apache,
        proxy,
        tiny_bundle,
        stream={"batch_images": IMAGES, "decode_threads": IMAGES},
        limits={"inline_bytes": 10},
    )
    line = RealLine(settings, S3Store(settings.s3))
    line.inspector.champions.preload()
    checks = [claims.leave(line.inspector.store, texture(n), "image/png").model_dump_json() for n in range(IMAGES)]
    line.send([message(f"img-{n}", one.encode(), content_type=CLAIM_CONTENT_TYPE) for n, one in enumerate(checks)])
    proxy.delay_s, before = LATE_S, waits()
    proxy.most_at_once.clear()
    begun = time.monotonic()
    with running(line):
        eventually(has_done(line, IMAGES), within_s=IMAGES * LATE_S)
        took_s = time.monotonic() - begun
        assert (len(line.sessions), line.losses) == (1, 0), "it stayed a member"
    proxy.delay_s = 0.0
    assert waits() == before, "late answers are answers"
    assert proxy.most_at_once == {"GET": IMAGES, "PUT": IMAGES}, "side by side, as many as there are decode threads"
    assert 2 * LATE_S <= took_s < IMAGES * LATE_S
    audit = line.audit()
    assert audit.right, audit.troubles
    assert (audit.total("images"), audit.total("events"), audit.masks) == (IMAGES, IMAGES, IMAGES)


@pytest.mark.servers
@pytest.mark.apache
def test_an_s3_that_refuses_writes_holds_up_what_needs_it_and_says_so(
    apache: Plant,
    proxy: S3Proxy,
    tiny_bundle: ModelBundle,
    eventually: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = prepared(apache, proxy, tiny_bundle, limits={"inline_bytes": 10})
    line = RealLine(settings, S3Store(settings.s3))
    proxy.refused = frozenset({"PUT"})
    before = waits()
    with running(line), caplog.at_level(logging.WARNING, "pipeline.stream.patience"):
        line.send([message(f"img-{n}", texture(n)) for n in range(IMAGES)])
        eventually(lambda: line.worker.waiting_for == "S3", within_s=60)
        time.sleep(1.2 * SESSION_S)  # it stays a member meanwhile, as is seen below
        eventually(lambda: waits() >= before + 4, what="it asks again and again")
        assert line.worker.trouble() is None
        assert "refused to write 'masks/bottle/" in line.worker.wait_reason
        assert "AccessDenied: Access Denied." in line.worker.wait_reason
        (told,) = [record.getMessage() for record in caplog.records if record.name == "pipeline.stream.patience"]
        assert told == f"waiting for S3: {line.worker.wait_reason}", "once, and not with each try"
        assert line.committed() == 0
        proxy.refused = frozenset()
        eventually(has_done(line, IMAGES), within_s=60)
        eventually(lambda: line.worker.wait_reason == "")
        assert (len(line.sessions), line.losses) == (1, 0)
    audit = line.audit()
    assert audit.right, audit.troubles
    assert (audit.total("images"), audit.total("events"), audit.deadletters, audit.masks) == (
        IMAGES,
        IMAGES,
        {},
        IMAGES,
    )


@pytest.mark.servers
@pytest.mark.apache
def test_an_s3_that_refuses_writes_does_not_touch_a_stream_whose_masks_travel_inline(
    apache: Plant, proxy: S3Proxy, tiny_bundle: ModelBundle, eventually: Callable[..., None]
) -> None:
    settings = prepared(apache, proxy, tiny_bundle)
    line = RealLine(settings, S3Store(settings.s3))
    proxy.refused = frozenset({"PUT"})
    before = waits()
    with running(line):
        line.send([message(f"img-{n}", texture(n)) for n in range(IMAGES)])
        eventually(has_done(line, IMAGES), within_s=60)
    assert waits() == before
    assert proxy.answers["PUT", 403] == 0
    assert proxy.answers["GET", 200] >= 3, "the model came through it"
    assert line.audit().right


@pytest.mark.parametrize(
    "refusal",
    [
        (403, "AccessDenied", "Access Denied."),
        (500, "InternalError", "We encountered an internal error, please try again."),  # SeaweedFS on a full disk
        (503, "SlowDown", "Reduce your request rate."),
        (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),  # MinIO on one
    ],
    ids=lambda refusal: refusal[1],
)
def test_a_refused_write_is_worth_waiting_for_and_told_in_the_stores_own_words(refusal: tuple[int, str, str]) -> None:
    with s3_proxy("127.0.0.1:9") as proxy:
        proxy.refused, proxy.refusal = frozenset({"PUT"}), refusal
        store = S3Store(S3(endpoint=proxy.url, access_key="key", secret_key="secret"))  # type: ignore[arg-type]
        for put in (lambda: store.put("masks/x", b"x"), lambda: store.put_if("masks/x", b"x", None)):
            with pytest.raises(StoreUnavailable, match=rf"S3 at {proxy.url} refused to write 'masks/x'.*{refusal[1]}"):
                put()
