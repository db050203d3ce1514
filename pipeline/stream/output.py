"""What an inspected image becomes: an event and a mask, and the heat map where asked for."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from model import Findings, Scored, encode_heat_png, encode_mask_png
from pipeline.contracts.broker import Outgoing
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import (
    CLAIM_CONTENT_TYPE,
    HEAT_MAPPED,
    IMAGE_INSPECTED,
    MASK_CUT,
    InspectionEvent,
    MaskReference,
    SourceOffset,
    Times,
    event_id,
)
from pipeline.settings import Settings
from pipeline.storage import claims
from pipeline.storage.store import ObjectStore
from pipeline.stream.intake import Captured


@dataclass(frozen=True)
class Inspected:
    """An image with its score and its findings."""

    captured: Captured
    model_version: str
    scored: Scored
    findings: Findings
    scored_at: datetime


def output_messages(inspected: Inspected, settings: Settings, store: ObjectStore) -> list[Outgoing]:
    """The messages of one image: mask first, so that a reader who has the event finds the mask.

    A picture too large to travel inline is put into the store under a key made of the event id, and its message
    becomes a claim check; the object is there before the transaction commits.

    Raises:
        StoreUnavailable: wait and try again.
    """
    mask_png = encode_mask_png(inspected.findings.mask)
    event = _event(inspected, settings, hashlib.sha256(mask_png).hexdigest())
    messages = [_picture(inspected, event, "mask", mask_png, settings, store)]
    if settings.stream.heat_maps == "always" or (settings.stream.heat_maps == "flagged" and event.verdict != "OK"):
        messages.append(_picture(inspected, event, "heat", encode_heat_png(inspected.scored), settings, store))
    envelope = _envelope(inspected, event.event_id, IMAGE_INSPECTED, "application/json", event.times.published)
    key = inspected.captured.record.key or inspected.captured.envelope.source.encode()
    messages.append(Outgoing(settings.topics.events, key, event.model_dump_json().encode(), envelope.headers()))
    return messages


def _event(inspected: Inspected, settings: Settings, mask_sha256: str) -> InspectionEvent:
    captured, scored = inspected.captured, inspected.scored
    identifier = event_id(captured.envelope.id, inspected.model_version)
    camera = captured.envelope.source
    return InspectionEvent(
        event_id=identifier,
        image_id=captured.envelope.id,
        camera=camera,
        product=captured.envelope.subject,
        model_version=inspected.model_version,
        score=scored.score,
        normalised_score=scored.normalised_score,
        threshold=scored.threshold,
        verdict=scored.verdict,
        regions=list(inspected.findings.regions),
        width=scored.width,
        height=scored.height,
        mask=MaskReference(
            topic=settings.topics.masks,
            key=(captured.record.key or camera.encode()).decode(errors="replace"),
            event_id=identifier,
            sha256=mask_sha256,
        ),
        times=Times(
            captured=captured.envelope.time,
            received=captured.received_at,
            scored=inspected.scored_at,
            published=datetime.now(UTC),
        ),
        source=SourceOffset(
            topic=captured.record.topic, partition=captured.record.partition, offset=captured.record.offset
        ),
    )


def _picture(
    inspected: Inspected, event: InspectionEvent, kind: str, png: bytes, settings: Settings, store: ObjectStore
) -> Outgoing:
    content_type, value = "image/png", png
    if len(png) > settings.limits.inline_bytes:
        content_type = CLAIM_CONTENT_TYPE
        value = (
            claims.leave(store, png, "image/png", f"{kind}s/{event.product}/{event.event_id}.png")
            .model_dump_json()
            .encode()
        )
    envelope = _envelope(
        inspected,
        f"{event.event_id}-{kind}",
        MASK_CUT if kind == "mask" else HEAT_MAPPED,
        content_type,
        event.times.published,
    )
    key = inspected.captured.record.key or event.camera.encode()
    return Outgoing(settings.topics.masks, key, value, envelope.headers())


def _envelope(inspected: Inspected, identifier: str, kind: str, content_type: str, time: datetime) -> Envelope:
    captured = inspected.captured.envelope
    return Envelope(
        id=identifier,
        source=captured.source,
        type=kind,
        subject=captured.subject,
        time=time,
        content_type=content_type,
        traceparent=captured.traceparent,
        extensions={"imageid": captured.id},
    )
