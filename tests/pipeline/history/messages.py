"""Messages of the output topics, as replicas and commands write them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from model import Region
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.deadletters import dead_letter
from pipeline.contracts.events import (
    IMAGE_INSPECTED,
    InspectionEvent,
    MaskReference,
    Release,
    SourceOffset,
    Times,
    Verdict,
    event_id,
)
from pipeline.errors import ProductUnknown
from pipeline.settings import Settings

VERSION = "20260131T120000Z-0f1e2d3c"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOON_MS = round(NOON.timestamp() * 1000)
VERDICTS: tuple[Verdict, ...] = ("OK", "OK", "OK", "NotOK", "NotDecidable")


def inspected(number: int, settings: Settings, *, verdict: Verdict | None = None, camera: str = "") -> InspectionEvent:
    image, camera = f"image-{number}", camera or f"/plant/line1/cam{number % 4}"
    verdict = verdict or VERDICTS[number % len(VERDICTS)]
    times = [NOON + timedelta(seconds=number, milliseconds=10 * n) for n in range(4)]
    regions = [] if verdict == "OK" else [Region(x=3, y=4, width=5, height=6, area_px=20, peak=1.5)]
    identifier = event_id(image, VERSION)
    return InspectionEvent(
        event_id=identifier, image_id=image, camera=camera, product=("cap", "bottle")[number % 2],
        model_version=VERSION, score=0.01 * number, normalised_score=0.5 + 0.001 * number, threshold=0.05,
        verdict=verdict, regions=regions, width=640, height=480,
        mask=MaskReference(topic=settings.topics.masks, key=camera, event_id=identifier, sha256=f"{number:064x}"),
        times=Times(captured=times[0], received=times[1], scored=times[2], published=times[3]),
        source=SourceOffset(topic=settings.topics.images, partition=number % 2, offset=number),
    )  # fmt: skip


def of_event(event: InspectionEvent, settings: Settings) -> Outgoing:
    envelope = Envelope(
        event.event_id, event.camera, IMAGE_INSPECTED, event.product, event.times.published, "application/json"
    )
    value = event.model_dump_json().encode()
    return Outgoing(settings.topics.events, event.camera.encode(), value, envelope.headers())


def of_release(settings: Settings, product: str) -> Outgoing:
    release = Release(product=product, version=VERSION, promoted_at=NOON)
    return Outgoing(settings.topics.releases, product.encode(), release.model_dump_json().encode())


def of_letter(settings: Settings, number: int) -> Outgoing:
    headers = (("ce_id", f"image-{number}".encode()), ("ce_source", b"/plant/cam9"), ("ce_subject", b"unknown"))
    record = Record(settings.topics.images, 0, number, b"/plant/cam9", b"bytes", headers, NOON_MS)
    return dead_letter(record, ProductUnknown("no such product"), settings.topics.deadletters)


def read(message: Outgoing, offset: int, partition: int = 0, at_ms: int = NOON_MS) -> Record:
    """As it comes back from its topic."""
    return Record(message.topic, partition, offset, message.key, message.value, message.headers, at_ms)


def letter_that_is_a_mark(record: Record) -> Record:
    return replace(record, headers=(*record.headers, ("dlq.replayed.offset", b"0:7")))
