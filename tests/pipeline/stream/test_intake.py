"""A message becomes a captured image, or says why not."""

from datetime import UTC, datetime

import pytest

from pipeline.contracts.broker import Record
from pipeline.contracts.events import CLAIM_CONTENT_TYPE
from pipeline.errors import ClaimMissing, ClaimRefused, DeadLetter, HeadersRefused, StoreUnavailable
from pipeline.fakes import MemoryStore
from pipeline.settings import Limits
from pipeline.storage.claims import leave
from pipeline.stream.intake import captured
from tests.pipeline.tiny import TRACE, envelope

LIMITS = Limits()


def record(value: bytes | None = b"image", key: bytes | None = b"/plant/cam1", **changes) -> Record:
    timestamp_ms = changes.pop("timestamp_ms", 1_700_000_000_000)
    headers = changes.pop("headers", None) or envelope("img-1", **changes).headers()
    return Record("linewatch.images", 1, 7, key, value, headers, timestamp_ms)


def test_an_inline_image_is_captured_with_its_envelope() -> None:
    found = captured(record(), MemoryStore(), LIMITS)
    assert found.data == b"image"
    assert (found.envelope.id, found.envelope.source, found.envelope.subject) == ("img-1", "/plant/cam1", "bottle")
    assert found.envelope.traceparent == TRACE
    assert abs((datetime.now(UTC) - found.received_at).total_seconds()) < 5


def test_a_claim_check_is_redeemed() -> None:
    store = MemoryStore()
    claim = leave(store, b"large image", "image/png").model_dump_json().encode()
    assert captured(record(claim, content_type=CLAIM_CONTENT_TYPE), store, LIMITS).data == b"large image"
    store.objects.clear()
    with pytest.raises(ClaimMissing):
        captured(record(claim, content_type=CLAIM_CONTENT_TYPE), store, LIMITS)


def test_an_empty_claim_check_is_refused() -> None:
    with pytest.raises(ClaimRefused):
        captured(record(None, content_type=CLAIM_CONTENT_TYPE), MemoryStore(), LIMITS)


def test_a_silent_store_is_waited_for() -> None:
    store = MemoryStore()
    claim = leave(store, b"large image", "image/png").model_dump_json().encode()
    store.outages = 1
    with pytest.raises(StoreUnavailable):
        captured(record(claim, content_type=CLAIM_CONTENT_TYPE), store, LIMITS)


@pytest.mark.parametrize(
    "changes",
    [
        {"product": "../models"},
        {"product": "bottle\n"},
        {"product": "bottle/20260131T120000Z-0f1e2d3c"},
        {"camera": "/plant/../cam"},
        {"camera": "cam1"},
        {"camera": "/plant/cam1\n"},
        {"type": "linewatch.image.inspected.v1"},
        {"headers": (("x", b"y"),)},
        {"key": b"k" * 2000},
    ],
)
def test_a_message_that_names_no_product_camera_or_image_is_a_dead_letter(changes: dict) -> None:
    with pytest.raises(HeadersRefused):
        captured(record(**changes), MemoryStore(), LIMITS)


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 10**15, 2**63 - 1])
def test_an_odd_timestamp_of_the_broker_costs_no_image(timestamp_ms: int) -> None:
    found = captured(record(timestamp_ms=timestamp_ms), MemoryStore(), LIMITS)
    assert found.data == b"image"
    bare = tuple(h for h in envelope("img-1").headers() if h[0] != "ce_time")
    found = captured(record(timestamp_ms=timestamp_ms, headers=bare), MemoryStore(), LIMITS)
    assert found.envelope.time <= found.received_at


def test_a_missing_value_is_left_to_the_decoder() -> None:
    assert captured(record(None), MemoryStore(), LIMITS).data == b""


def test_every_refusal_is_a_dead_letter_with_the_class_operators_filter_by() -> None:
    with pytest.raises(DeadLetter) as caught:
        captured(record(headers=(("x", b"y"),)), MemoryStore(), LIMITS)
    assert caught.value.error_class == "HeadersRefused"
