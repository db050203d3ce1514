"""A past event once more: its image from the topic, its version from the registry, through the engine again."""

import hashlib
import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from kafka import TopicPartition
from PIL import Image

from jobs.line.follow import assignable, event_of, picture_of, records_of
from jobs.past.retained import Past
from model import Findings, Scored, encode_heat_png, encode_mask_png
from pipeline.contracts.broker import Record
from pipeline.contracts.events import InspectionEvent, SourceOffset
from pipeline.errors import DeadLetter, LinewatchError, NameRefused, UnknownVersion
from pipeline.kafka.clients import broker_answers, make_consumer
from pipeline.settings import Settings
from pipeline.storage.store import ObjectStore
from pipeline.stream.inspector import Inspector
from pipeline.stream.intake import captured

EVENT_ID = re.compile(r"[0-9a-f]{32}")
# What the golden tests hold offline, REST and stream to.
SCORE_TOLERANCE = 1e-4
MASK_TOLERANCE = 1e-4
FETCH_TIMEOUT_S = 10.0
MASK_BEFORE_EVENT = timedelta(minutes=10)
Progress = Callable[[int, int], None]


class Gone(LinewatchError):
    """The event, its image or its version is not there any more."""


@dataclass(frozen=True)
class Reproduction:
    """An event, and what the same version makes of the same image now.

    mask_before: the PNG that was published, where it was needed and is still there. pixels_differing: of the masks;
    None where the old one would have been needed.
    """

    event: InspectionEvent
    image: bytes
    scored: Scored
    findings: Findings
    mask: bytes
    mask_before: bytes | None
    pixels_differing: int | None

    @property
    def image_sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()

    @property
    def mask_sha256(self) -> str:
        return hashlib.sha256(self.mask).hexdigest()

    @property
    def score_same(self) -> bool:
        return abs(self.scored.score - self.event.score) <= SCORE_TOLERANCE * abs(self.event.score)

    @property
    def mask_same(self) -> bool:
        pixels = self.scored.width * self.scored.height
        return self.pixels_differing is not None and self.pixels_differing <= MASK_TOLERANCE * pixels

    @property
    def same(self) -> bool:
        return self.score_same and self.mask_same and self.scored.verdict == self.event.verdict

    def mask_in_words(self) -> str:
        if self.pixels_differing is None:
            return "differs; the old mask is gone from its topic, so nobody knows in how many pixels"
        if self.mask_sha256 == self.event.mask.sha256:
            return "identical"
        pixels = self.scored.width * self.scored.height
        return f"{self.pixels_differing} of {pixels} pixels differ"

    def write(self, folder: Path) -> list[Path]:
        """Image, mask and heat map, and the old mask where it is another, under the event's id."""
        with Image.open(io.BytesIO(self.image)) as image:
            suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(str(image.format), str(image.format).lower())
        files = {
            f"{self.event.event_id}-image.{suffix}": self.image,
            f"{self.event.event_id}-mask.png": self.mask,
            f"{self.event.event_id}-heat.png": encode_heat_png(self.scored),
        }
        if self.mask_before:
            files[f"{self.event.event_id}-mask-before.png"] = self.mask_before
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return [folder / name for name in files]


def checked_id(text: str) -> str:
    """``text`` itself, where it can be an event's id.

    Raises:
        NameRefused: it can't.
    """
    if not EVENT_ID.fullmatch(text):
        raise NameRefused(f"{text[:80]!r} can't be an event id: they are 32 digits of 0-9 and a-f")
    return text


def reproduce(
    settings: Settings, store: ObjectStore, identifier: str, *, exact: bool, on_progress: Progress = lambda *_: None
) -> Reproduction:
    """Find the event, fetch its image, score it again by the version that it names.

    exact: whether the broker tells its offsets right.

    Raises:
        Gone: the event, its image or its version.
        model.ModelError: the version can't be loaded.
    """
    record = find_event(settings, identifier, exact=exact, on_progress=on_progress)
    event = event_of(record)
    image = fetch_image(settings, store, event.event_id, event.image_id, event.source)
    inspector = Inspector(settings, store)
    key = f"{event.product}/{event.model_version}"
    try:
        inspector.engine.warm(key)
    except UnknownVersion:
        raise Gone(
            f"the version {event.model_version} of {event.product} that scored event {identifier} is not in the "
            f"registry: it was deleted, or never was in this one; 'linewatch models list {event.product}' says what is"
        ) from None
    (scored,) = inspector.score([inspector.read(image, key)], [key])
    findings = inspector.cut(scored)
    mask = encode_mask_png(findings.mask)
    before: bytes | None = None
    differing: int | None = 0
    if hashlib.sha256(mask).hexdigest() != event.mask.sha256:
        before = find_mask(settings, store, record, exact=exact)
        differing = None if before is None else _differing(before, findings.mask)
    return Reproduction(event, image, scored, findings, mask, before, differing)


def find_event(settings: Settings, identifier: str, *, exact: bool, on_progress: Progress = lambda *_: None) -> Record:
    """The message of an event on the live topic.

    Raises:
        Gone: it is not there.
    """
    checked_id(identifier)
    with Past(settings, settings.topics.events, exact=exact) as past:
        for records in past.batches():
            on_progress(*past.progress)
            for record in records:
                if ("ce_id", identifier.encode()) in record.headers:
                    return record
    raise Gone(
        f"no event {identifier} on {settings.topics.events}: the topic's retention has deleted it, or it went to "
        "another topic"
    )


def fetch_image(settings: Settings, store: ObjectStore, event_id: str, image_id: str, source: SourceOffset) -> bytes:
    """The image at exactly the offset that the event names, its claim check redeemed.

    Raises:
        Gone: it is not there, or another one is.
    """
    where = f"{source.topic}/{source.partition}@{source.offset}"
    record = _record_at(settings, TopicPartition(source.topic, source.partition), source.offset)
    if record is None:
        raise Gone(f"the image of event {event_id} is gone from {where}: the topic's retention has deleted it")
    try:
        image = captured(record, store, settings.limits)
    except DeadLetter as error:
        raise Gone(f"the image of event {event_id} can't be had from {where}: {error}") from None
    if image.envelope.id != image_id:
        raise Gone(
            f"{where} holds image {image.envelope.id!r}, and not {image_id!r} of event {event_id}: "
            "the topic was made anew since"
        )
    return image.data


def find_mask(settings: Settings, store: ObjectStore, event_record: Record, *, exact: bool) -> bytes | None:
    """The PNG published with the event; None where it is gone."""
    event = event_of(event_record)
    identifier = f"{event.event_id}-mask".encode()
    since = datetime.fromtimestamp(max(0, event_record.timestamp_ms) / 1000, UTC) - MASK_BEFORE_EVENT
    with Past(settings, event.mask.topic, exact=exact, since=since) as past:
        for record in (record for records in past.batches() for record in records):
            if ("ce_id", identifier) in record.headers:
                try:
                    return picture_of(record, store, settings)[2]
                except DeadLetter:  # its claim check's object is gone, or is another one
                    return None
    return None


def _record_at(settings: Settings, tp: TopicPartition, offset: int) -> Record | None:
    with broker_answers(settings):
        consumer = make_consumer(settings, max_poll_records=1)
        try:
            if tp not in assignable(consumer, settings, tp.topic):
                return None
            consumer.assign([tp])
            consumer.seek(tp, offset)
            deadline = time.monotonic() + FETCH_TIMEOUT_S
            while time.monotonic() < deadline:
                for record in records_of(consumer.poll(timeout_ms=200)):
                    return record if record.offset == offset else None
        finally:
            consumer.close(autocommit=False)
    return None


def _differing(before: bytes, mask_HW: np.ndarray) -> int:
    """Pixels of the two masks that differ; all of them where their sizes do."""
    with Image.open(io.BytesIO(before)) as image:
        old_HW = np.asarray(image)
    return int(np.sum(old_HW != mask_HW)) if old_HW.shape == mask_HW.shape else int(mask_HW.size)
