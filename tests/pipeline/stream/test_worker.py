"""Every image becomes one event and one mask, or one dead letter."""

import io
import struct
import zlib
from collections import Counter

import pytest
from PIL import Image

from model import ModelBundle, drawn_area
from pipeline.contracts.broker import Outgoing
from pipeline.contracts.events import CLAIM_CONTENT_TYPE
from pipeline.fakes import MemoryStore
from pipeline.storage import claims
from tests.pipeline.line import IMAGES, MASKS, Line, running
from tests.pipeline.tiny import PRODUCT, SIDE, fitted, publish, texture


def huge_png() -> bytes:
    """A header that claims 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 8) + b"IDAT" + b"\0" * 12


def test_each_image_becomes_one_event_and_one_mask(line: Line, eventually) -> None:
    images = line.send(*(texture(100 + number, spot=number % 3 == 0) for number in range(9)))
    with running(line):
        eventually(line.finished)
    assert line.seen() == Counter(images)
    assert line.letters() == []
    events = {event.event_id: event for event in line.events()}
    masks = [dict(record.headers)["ce_id"].decode() for record in line.broker.read(MASKS)]
    assert sorted(masks) == sorted(f"{name}-mask" for name in events)
    spotted = {event.image_id for event in events.values() if event.verdict != "OK"}
    assert {images[0], images[3], images[6]} <= spotted
    assert all(event.product == PRODUCT and event.times.captured <= event.times.published for event in events.values())


def test_one_cameras_events_keep_its_order(line: Line, eventually) -> None:
    images = line.send(*(texture(number) for number in range(12)))
    with running(line):
        eventually(line.finished)
    for camera in ("/plant/cam0", "/plant/cam1"):
        order = [event.image_id for event in line.events() if event.camera == camera]
        assert order == [name for number, name in enumerate(images) if f"cam{number % 2}" in camera]


def test_what_cannot_be_an_event_is_a_dead_letter_and_its_neighbours_are_not(line: Line, eventually) -> None:
    good, jpeg = texture(1), texture(2, form="JPEG")
    gone = claims.leave(MemoryStore(), good, "image/png").model_dump_json().encode()
    expected = []
    images = []

    def bad(error_class: str, value: bytes | None, **envelope: str) -> None:
        images.extend(line.send(good))
        expected.extend((name, error_class) for name in line.send(value, **envelope))

    bad("EmptyImage", b"")
    bad("EmptyImage", None)
    bad("UnsupportedFormat", b"good morning, this is no image")
    bad("UnreadableImage", jpeg[: len(jpeg) // 2])
    bad("ImageTooLarge", huge_png())
    bad("ProductUnknown", good, product="newcomer")
    bad("ClaimMissing", gone, content_type=CLAIM_CONTENT_TYPE)
    bad("ClaimRefused", b"{}", content_type=CLAIM_CONTENT_TYPE)
    bad("HeadersRefused", good, type="something.else")
    bad("HeadersRefused", good, product="../models")
    for headers in ((), (("ce_id", b"\xff"),), (("x", None),)):
        line.broker.produce(Outgoing(IMAGES, None, good, headers))  # type: ignore[arg-type]
    line.broker.produce(Outgoing(IMAGES, None, None))
    images += line.send(good)
    with running(line):
        eventually(line.finished)
    assert line.seen() == Counter(images)
    named = [letter for letter in line.letters() if letter[0].startswith("img-")]
    assert named == sorted(expected)
    assert len(line.letters()) == len(expected) + 4


def test_what_lies_in_an_ignored_area_is_in_no_event_and_another_size_is_a_dead_letter(line: Line, eventually) -> None:
    """The area hides the spots of its product's images; the same images of another product are flagged."""
    area = drawn_area([((20, 20), (70, 20), (70, 70), (20, 70))], SIDE, SIDE)
    publish(line.store, fitted(area), "plate")
    spotted = [texture(100 + number, spot=True) for number in range(3)]
    buffer = io.BytesIO()
    Image.open(io.BytesIO(spotted[0])).resize((SIDE - 1, SIDE)).save(buffer, "PNG")
    hidden = line.send(*spotted, product="plate")
    flagged = line.send(*spotted)
    (small,) = line.send(buffer.getvalue(), product="plate")
    with running(line):
        eventually(line.finished)
    assert line.letters() == [(small, "SizeDiffers")]
    events = {event.image_id: event for event in line.events()}
    assert {events[name].verdict for name in flagged} <= {"NotOK", "NotDecidable"}
    engine = line.inspector.engine
    for name, data in zip(hidden, spotted, strict=True):
        key = f"plate/{events[name].model_version}"
        (offline,) = engine.score([line.inspector.read(data, key)], [key])
        assert events[name].score == pytest.approx(offline.score, rel=1e-4)
        assert all(region.x + region.width <= 20 or region.x >= 70 or region.y >= 70 or region.y + region.height <= 20
                   for region in events[name].regions)  # fmt: skip


def test_a_claim_check_is_redeemed(line: Line, eventually) -> None:
    claim = claims.leave(line.store, texture(7, spot=True), "image/png").model_dump_json().encode()
    images = line.send(claim, content_type=CLAIM_CONTENT_TYPE)
    with running(line):
        eventually(line.finished)
    assert line.seen() == Counter(images)


def test_a_new_champion_takes_over_in_mid_stream(line: Line, tiny_bundle: ModelBundle, eventually) -> None:
    old = line.inspector.champions.version(PRODUCT)
    line.inspector.champions.watch()
    images = line.send(*(texture(number) for number in range(6)))
    with running(line):
        eventually(line.finished)
        new = publish(line.store, tiny_bundle)
        eventually(lambda: line.inspector.champions.serving()[PRODUCT] == new)
        images += line.send(*(texture(number) for number in range(6)))
        eventually(line.finished)
    assert line.seen() == Counter(images)
    assert [event.model_version for event in line.events()] == [old] * 6 + [new] * 6
    assert line.inspector.engine.loaded == (f"{PRODUCT}/{new}",)
