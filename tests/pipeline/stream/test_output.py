"""An inspected image becomes a mask and an event: the same ones each time, the mask first."""

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from kafka.record.default_records import DefaultRecordBatchBuilder
from PIL import Image

from model import Calibration, Scored, cut, decode_heat_png
from model.verdict.scored import scored
from pipeline.contracts.broker import Record
from pipeline.contracts.cloudevents import envelope as read_envelope
from pipeline.contracts.deadletters import pending
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, InspectionEvent, event_id
from pipeline.errors import ClaimMissing, ClaimRefused, OutputTooLarge, ProductUnknown, StoreUnavailable
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from pipeline.storage.claims import letter_value, redeem
from pipeline.stream.intake import Captured
from pipeline.stream.output import Inspected, letter_of, output_messages
from tests.pipeline.tiny import TRACE, envelope

VERSION = "20260131T120000Z-0f1e2d3c"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CALIBRATION = Calibration(
    threshold=2.0,
    review_low=1.8,
    review_high=2.2,
    pixel_threshold=1.5,
    target_false_reject_rate=0.01,
    heldout_images=8,
    heldout_median=1.0,
    heldout_maximum=1.5,
)
PLAIN = Settings.from_values({})


def result(peak: float) -> Scored:
    anomaly = np.full((16, 16), 0.5, np.float32)
    anomaly[4:8, 4:8] = peak
    return scored(anomaly[None], CALIBRATION, 160, 120)


def inspected(peak: float = 3.0, key: bytes | None = b"/plant/cam1") -> Inspected:
    one = result(peak)
    record = Record("linewatch.images", 1, 42, key, b"image", (), 0)
    captured = Captured(record, envelope("img-1", time=NOW), b"image", NOW)
    return Inspected(captured, VERSION, one, cut(one), NOW)


def with_heat(when: str) -> Settings:
    return Settings.from_values({"stream": {"heat_maps": when}})


def kinds(messages) -> list[str]:
    return [dict(message.headers)["ce_type"].decode().split(".")[1] for message in messages]


def event_in(messages) -> InspectionEvent:
    return InspectionEvent.model_validate_json(messages[-1].value)


def test_the_event_says_what_was_found_by_what_and_where() -> None:
    event = event_in(output_messages(inspected(), PLAIN, MemoryStore()))
    assert (event.image_id, event.camera, event.product) == ("img-1", "/plant/cam1", "bottle")
    assert (event.model_version, event.verdict) == (VERSION, "NotOK")
    assert (event.score, event.normalised_score, event.threshold) == (3.0, 1.5, 2.0)
    assert (event.width, event.height) == (160, 120)
    assert (event.source.topic, event.source.partition, event.source.offset) == ("linewatch.images", 1, 42)
    (region,) = event.regions
    assert 40 <= region.x + region.width / 2 <= 80
    assert event.times.captured == NOW <= event.times.published


def test_the_mask_comes_before_the_event_and_the_event_names_its_hash() -> None:
    messages = output_messages(inspected(), PLAIN, MemoryStore())
    assert [message.topic for message in messages] == ["linewatch.masks", "linewatch.events"]
    assert event_in(messages).mask.sha256 == hashlib.sha256(messages[0].value).hexdigest()
    mask = np.asarray(Image.open(io.BytesIO(messages[0].value)))
    assert mask.shape == (120, 160)
    assert set(np.unique(mask)) == {0, 255}


def test_an_ok_image_has_an_empty_mask_and_no_region() -> None:
    messages = output_messages(inspected(peak=1.0), PLAIN, MemoryStore())
    assert event_in(messages).verdict == "OK"
    assert event_in(messages).regions == []
    assert not np.asarray(Image.open(io.BytesIO(messages[0].value))).any()


def test_event_ids_are_the_same_each_time_and_differ_between_images_and_versions() -> None:
    first, again = (event_in(output_messages(inspected(), PLAIN, MemoryStore())) for _ in range(2))
    assert first.event_id == again.event_id == event_id("img-1", VERSION)
    assert len({event_id("img-1", VERSION), event_id("img-2", VERSION), event_id("img-1", VERSION[:-1] + "d")}) == 3


def test_trace_and_image_id_are_carried_into_every_message() -> None:
    messages = output_messages(inspected(), with_heat("always"), MemoryStore())
    for message in messages:
        headers = dict(message.headers)
        assert headers["traceparent"] == TRACE.encode()
        assert headers["ce_imageid"] == b"img-1"
        read = read_envelope(message.headers, NOW)
        assert (read.source, read.subject) == ("/plant/cam1", "bottle")
    identifier = event_in(messages).event_id
    assert [dict(m.headers)["ce_id"].decode() for m in messages] == [
        f"{identifier}-mask",
        f"{identifier}-heat",
        identifier,
    ]


@pytest.mark.parametrize(
    ("when", "peak", "expected"),
    [
        ("never", 3.0, ["mask", "image"]),
        ("flagged", 3.0, ["mask", "heatmap", "image"]),
        ("flagged", 1.9, ["mask", "heatmap", "image"]),
        ("flagged", 1.0, ["mask", "image"]),
        ("always", 1.0, ["mask", "heatmap", "image"]),
    ],
)
def test_heat_maps_are_published_as_often_as_asked(when: str, peak: float, expected: list[str]) -> None:
    assert kinds(output_messages(inspected(peak), with_heat(when), MemoryStore())) == expected


def test_a_heat_map_tells_the_normalised_score() -> None:
    messages = output_messages(inspected(), with_heat("always"), MemoryStore())
    heat = decode_heat_png(messages[1].value)
    assert heat.shape == (120, 160)
    assert heat.max() == pytest.approx(1.5, abs=1e-3)


def test_a_picture_too_large_to_travel_becomes_a_claim_check_under_the_event_id() -> None:
    settings = Settings.from_values({"limits": {"inline_bytes": 10}, "stream": {"heat_maps": "always"}})
    store = MemoryStore()
    messages = output_messages(inspected(), settings, store)
    event = event_in(messages)
    for message, kind in zip(messages, ("masks", "heats"), strict=False):
        assert dict(message.headers)["content-type"] == CLAIM_CONTENT_TYPE.encode()
        png = redeem(message.value, store, settings.limits, prefix=f"{kind}/")
        assert png == store.objects[f"{kind}/bottle/{event.event_id}.png"]
    assert hashlib.sha256(store.objects[f"masks/bottle/{event.event_id}.png"]).hexdigest() == event.mask.sha256
    before = dict(store.objects)
    output_messages(inspected(), settings, store)
    assert store.objects == before, "published again, it lies at the same place"


def test_a_silent_store_is_waited_for() -> None:
    settings = Settings.from_values({"limits": {"inline_bytes": 10}})
    with pytest.raises(StoreUnavailable):
        output_messages(inspected(), settings, MemoryStore(outages=1))


def test_messages_keep_the_cameras_key_and_take_the_camera_where_there_was_none() -> None:
    for key, expected in ((b"\xff\x00cam", b"\xff\x00cam"), (None, b"/plant/cam1")):
        messages = output_messages(inspected(key=key), PLAIN, MemoryStore())
        assert {message.key for message in messages} == {expected}
    assert event_in(messages).mask.key == "/plant/cam1"


def test_the_topics_follow_the_prefix() -> None:
    settings = Settings.from_values({"topics": {"prefix": "hall2"}})
    messages = output_messages(replace(inspected()), settings, MemoryStore())
    assert [message.topic for message in messages] == ["hall2.masks", "hall2.events"]
    assert event_in(messages).mask.topic == "hall2.masks"


def fits(**limits: int):
    return lambda topic: limits.get(topic.rpartition(".")[2], 1 << 40)


def test_a_picture_that_its_topic_does_not_take_goes_by_claim_check_whatever_settings_allow() -> None:
    store, one = MemoryStore(), inspected()
    settings = with_heat("always")
    mask, heat, _ = output_messages(one, settings, store)
    assert not store.objects
    smaller = fits(masks=heat.size - 1)
    again, claimed_heat, _ = output_messages(one, settings, store, smaller)
    assert (again.value, dict(claimed_heat.headers)["content-type"].decode()) == (mask.value, CLAIM_CONTENT_TYPE)
    assert redeem(claimed_heat.value or b"", store, settings.limits, prefix="heats/") == heat.value
    assert claimed_heat.size < heat.size


def test_an_event_that_its_topic_does_not_take_is_refused_with_both_sizes() -> None:
    one = inspected()
    event = output_messages(one, PLAIN, MemoryStore())[-1]
    assert output_messages(one, PLAIN, MemoryStore(), fits(events=event.size + 9))
    with pytest.raises(OutputTooLarge, match=rf"of \d+ bytes for linewatch\.events, which takes {event.size - 9}"):
        output_messages(one, PLAIN, MemoryStore(), fits(events=event.size - 9))


def test_a_dead_letter_that_its_topic_does_not_take_has_its_value_in_the_store() -> None:
    store = MemoryStore()
    record = Record("linewatch.images", 1, 42, b"k", bytes(range(256)) * 40, (("dlq.value.at", b"x"),), 0)
    whole = letter_of(record, ProductUnknown("no model"), PLAIN, store)
    assert (whole.value, store.objects) == (record.value, {})
    letter = letter_of(record, ProductUnknown("no model"), PLAIN, store, fits(deadletters=4000))
    assert letter.size < 4000
    found, plain = (
        pending([Record(one.topic, 0, 7, one.key, one.value, one.headers, 0)])[0] for one in (letter, whole)
    )
    assert found.original(letter_value(found.value_at, store)) == plain.original()
    assert plain.original().value == record.value, "a header of the original's own says nothing"
    store.objects[found.value_at] = b"something else"
    with pytest.raises(ClaimRefused, match="not the one that was left there"):
        letter_value(found.value_at, store)
    store.objects.clear()
    with pytest.raises(ClaimMissing, match="no such object"):
        letter_value(found.value_at, store)
    with pytest.raises(ClaimRefused, match="only objects under letters/"):
        letter_value("models/bottle/aliases/champion.json", store)


def test_the_size_of_a_message_is_never_less_than_the_client_s_own_estimate() -> None:
    for message in output_messages(inspected(), with_heat("always"), MemoryStore()):
        estimate = DefaultRecordBatchBuilder.estimate_size_in_bytes(message.key, message.value, message.headers)
        assert estimate <= message.size <= estimate + 100
