"""What an inspected image becomes: an event and a mask, and the heat map where asked for."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from model import Findings, Scored, encode_heat_png, encode_mask_png
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.deadletters import dead_letter, without_value
from pipeline.contracts.drawing import drawn, review_rate
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
from pipeline.errors import DeadLetter, OutputTooLarge
from pipeline.settings import Settings
from pipeline.storage import claims
from pipeline.storage.store import ObjectStore
from pipeline.stream.intake import Captured

Largest = Callable[[str], int]
"""Bytes of the largest message that a topic takes."""


def unlimited(_topic: str) -> int:
    return 1 << 40


@dataclass(frozen=True)
class Inspected:
    """An image with its score and its findings."""

    captured: Captured
    model_version: str
    scored: Scored
    findings: Findings
    scored_at: datetime


def output_messages(
    inspected: Inspected, settings: Settings, store: ObjectStore, largest: Largest = unlimited
) -> list[Outgoing]:
    """The messages of one image: mask first, so that a reader who has the event finds the mask.

    A picture too large to travel inline, by settings or for its topic, is put into the store under a key made of the
    event id, and its message becomes a claim check; the object is there before the transaction commits.

    Raises:
        OutputTooLarge: even so a message is larger than its topic takes.
        StoreUnavailable: wait and try again.
    """
    mask_png = encode_mask_png(inspected.findings.mask)
    event = _event(inspected, settings, hashlib.sha256(mask_png).hexdigest())
    messages = [_picture(inspected, event, "mask", mask_png, settings, store, largest)]
    if settings.stream.heat_maps == "always" or (settings.stream.heat_maps == "flagged" and event.verdict != "OK"):
        heat_png = encode_heat_png(inspected.scored)
        messages.append(_picture(inspected, event, "heat", heat_png, settings, store, largest))
    envelope = _envelope(inspected, event.event_id, IMAGE_INSPECTED, "application/json", event.times.published)
    key = inspected.captured.record.key or inspected.captured.envelope.source.encode()
    messages.append(Outgoing(settings.topics.events, key, event.model_dump_json().encode(), envelope.headers()))
    for message in messages:
        if message.size > largest(message.topic):
            raise OutputTooLarge(
                f"a message of {message.size} bytes for {message.topic}, which takes {largest(message.topic)}: "
                "raise its max.message.bytes, then replay this letter"
            )
    return messages


def letter_of(
    record: Record, error: DeadLetter, settings: Settings, store: ObjectStore, largest: Largest = unlimited
) -> Outgoing:
    """The dead letter of a message; where its topic does not take it, with the value in the store.

    Raises:
        StoreUnavailable: wait and try again.
    """
    letter = dead_letter(record, error, settings.topics.deadletters)
    if letter.value and letter.size > largest(letter.topic):
        return without_value(letter, claims.leave_letter(store, letter.value))
    return letter


def _event(inspected: Inspected, settings: Settings, mask_sha256: str) -> InspectionEvent:
    captured, scored = inspected.captured, inspected.scored
    identifier = event_id(captured.envelope.id, inspected.model_version)
    camera = captured.envelope.source
    rate = review_rate(scored.verdict, settings.review.blind_rate, settings.review.flagged_rate)
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
        review=drawn(identifier, rate),
        review_rate=rate,
    )


def _picture(
    inspected: Inspected,
    event: InspectionEvent,
    kind: str,
    png: bytes,
    settings: Settings,
    store: ObjectStore,
    largest: Largest,
) -> Outgoing:
    def message(content_type: str, value: bytes) -> Outgoing:
        mapped = MASK_CUT if kind == "mask" else HEAT_MAPPED
        envelope = _envelope(inspected, f"{event.event_id}-{kind}", mapped, content_type, event.times.published)
        key = inspected.captured.record.key or event.camera.encode()
        return Outgoing(settings.topics.masks, key, value, envelope.headers())

    inline = message("image/png", png)
    if len(png) <= settings.limits.inline_bytes and inline.size <= largest(inline.topic):
        return inline
    claim = claims.leave(store, png, "image/png", f"{kind}s/{event.product}/{event.event_id}.png")
    return message(CLAIM_CONTENT_TYPE, claim.model_dump_json().encode())


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
