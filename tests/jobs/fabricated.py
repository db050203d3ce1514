"""A stream's topics written by hand, for the audit: what replicas would have written, and what they never should."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.audit.books import Books
from jobs.audit.count import count
from jobs.audit.report import Audit
from jobs.audit.window import Window
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.deadletters import MARKER, dead_letter, letter_of_deleted
from pipeline.contracts.events import (
    CLAIM_CONTENT_TYPE,
    InspectionEvent,
    MaskReference,
    SourceOffset,
    Times,
    event_id,
)
from pipeline.errors import DeletedUnread, ImageBroken
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from pipeline.storage import claims
from tests.pipeline.tiny import envelope

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
V1, V2 = "20260131T120000Z-0f1e2d3c", "20260131T130000Z-77aa0b1c"


def ms(seconds: float = 0) -> int:
    """Milliseconds of so many seconds after noon."""
    return round((NOON + timedelta(seconds=seconds)).timestamp() * 1000)


class Stream:
    """Topics of two partitions. Offsets and times go up by one and a second with each image of a partition."""

    def __init__(self) -> None:
        self.settings = Settings.from_values({})
        self.store = MemoryStore(bucket=self.settings.s3.bucket)
        self.images: list[Record] = []
        self.events: list[Record] = []
        self.letters: list[Record] = []
        self.masks: list[Record] = []
        self.late: list[Record] = []
        self.starts: dict[str, dict[int, int]] = {}
        self.topic_id = ""
        self._next = {0: 0, 1: 0}

    def image(
        self, partition: int = 0, *, gap: int = 0, name: str = "", camera: str = "", claim: bool = False
    ) -> Record:
        """``gap``: offsets before it that control records take."""
        offset = self._next[partition] + gap
        self._next[partition] = offset + 1
        camera, name = camera or f"/plant/cam{partition}", name or f"img-{partition}-{offset}"
        value, content_type = b"an image", "image/png"
        if claim:
            content_type = CLAIM_CONTENT_TYPE
            value = claims.leave(self.store, name.encode(), "image/png").model_dump_json().encode()
        headers = envelope(name, camera=camera, content_type=content_type, time=NOON).headers()
        topic = self.settings.topics.images
        record = Record(topic, partition, offset, camera.encode(), value, headers, ms(offset))
        self.images.append(record)
        return record

    def event(self, image: Record, version: str = V1, *, mask: bytes = b"mask", **changes: Any) -> Record:
        """The event of an image, published a tenth of a second after it came."""
        headers = {name: value.decode() for name, value in image.headers if value}
        time = NOON + timedelta(seconds=image.offset + 0.1)
        identifier = event_id(headers["ce_id"], version)
        event = InspectionEvent(
            event_id=identifier,
            image_id=headers["ce_id"],
            camera=headers["ce_source"],
            product="bottle",
            model_version=version,
            score=1.0,
            normalised_score=0.5,
            threshold=2.0,
            verdict="OK",
            regions=[],
            width=4,
            height=4,
            mask=MaskReference(topic="masks", key="k", event_id=identifier, sha256=hashlib.sha256(mask).hexdigest()),
            times=Times(captured=time, received=time, scored=time, published=time),
            source=SourceOffset(topic=image.topic, partition=image.partition, offset=image.offset),
        ).model_copy(update=changes)
        outgoing = self._outgoing(self.settings.topics.events, event.event_id, image, event.model_dump_json().encode())
        return self._append(self.events, outgoing, image)

    def mask(
        self, image: Record, version: str = V1, *, mask: bytes = b"mask", kind: str = "mask", claim: bool = False
    ) -> Record:
        identifier = event_id(dict(image.headers)["ce_id"].decode(), version)
        value, content_type = mask, "image/png"
        if claim:
            content_type = CLAIM_CONTENT_TYPE
            key = f"{kind}s/bottle/{identifier}.png"
            value = claims.leave(self.store, mask, "image/png", key).model_dump_json().encode()
        outgoing = self._outgoing(
            self.settings.topics.masks, f"{identifier}-{kind}", image, value, content_type=content_type
        )
        return self._append(self.masks, outgoing, image)

    def inspect(self, image: Record, version: str = V1, **mask: Any) -> None:
        """As a replica does: the mask, then the event."""
        self.mask(image, version, **mask)
        self.event(image, version)

    def refuse(self, image: Record, error_class: str = "UnreadableImage") -> Record:
        letter = dead_letter(image, ImageBroken(error_class, "cut"), self.settings.topics.deadletters)
        return self._append(self.letters, letter, image)

    def delete_unread(self, partition: int, first: int, messages: int, topic_id: str = "", time_ms: int = 0) -> None:
        """The dead letter of a replica that found a gap."""
        why = DeletedUnread("deleted", first, messages, topic_id)
        letter = letter_of_deleted(self.settings.topics.images, partition, why, self.settings.topics.deadletters)
        record = self._append(self.letters, letter, self.images[0])
        self.letters[-1] = replace(record, timestamp_ms=time_ms or record.timestamp_ms)

    def made_anew(self) -> None:
        """The topic of images: without an image, and offsets begin again."""
        self.images.clear()
        self._next = dict.fromkeys(self._next, 0)

    def mark_replayed(self) -> None:
        marker = Outgoing(self.settings.topics.deadletters, b"k", b"", ((MARKER, b"0:0"),))
        self._append(self.letters, marker, self.images[0])

    def audit(
        self,
        window: Window = Window(),  # noqa: B008
        *,
        committed: dict[int, int | None] | None = None,
        exactly_once: bool = True,
    ) -> Audit:
        """Without ``committed`` the group is at the end of both partitions."""
        topics = self.settings.topics
        books = Books(topics.images, self.settings.s3.bucket, window, committed or dict(self._next), self.topic_id)
        for record in self.images:
            books.enter_image(record)
        for topic, offsets in self.starts.items():
            books.note_starts(topic, offsets)
        for record in self.events:
            books.enter_event(record)
        for record in self.letters:
            books.enter_letter(record)
        for record in self.masks:
            books.enter_picture(record)
        for record in self.late:
            books.enter_event(record, late=True)
        return count(books, self.settings, self.store, exactly_once=exactly_once)

    def _outgoing(self, topic: str, identifier: str, image: Record, value: bytes, **changes: Any) -> Outgoing:
        headers = dict(image.headers)
        facts = {"camera": headers["ce_source"].decode(), "extensions": {"imageid": headers["ce_id"].decode()}}
        return Outgoing(topic, image.key, value, envelope(identifier, **facts, **changes).headers())

    def _append(self, log: list[Record], message: Outgoing, image: Record) -> Record:
        time = image.timestamp_ms + 100
        log.append(Record(message.topic, 0, len(log), message.key, message.value, message.headers, time))
        return log[-1]


def inspected_stream() -> Stream:
    """Four images in each of two partitions, with holes that control records leave; each inspected, one refused."""
    stream = Stream()
    for partition in (0, 1):
        for number in range(4):
            image = stream.image(partition, gap=number % 2)
            if (partition, number) == (1, 3):
                stream.refuse(image)
            else:
                stream.inspect(image)
    stream.mask(stream.images[3], kind="heat", mask=b"heat")
    return stream
