"""What an audit keeps of each record: where it lies, whose it is, and digests; never an image or a mask.

Records of a partition must come in order, and images before all others.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from jobs.audit.columns import DIGEST_BYTES, Digests, Names, Texts
from jobs.audit.objects import PREFIXES
from jobs.audit.window import Window
from jobs.line.follow import event_of
from pipeline.contracts.broker import Record
from pipeline.contracts.deadletters import DELETED, MARKER, TOPIC_ID
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, ClaimCheck
from pipeline.errors import DeletedUnread
from pipeline.storage.claims import plain

OFFSET_BITS = 48
NOWHERE = -1
NO_DIGEST = bytes(DIGEST_BYTES)


def place(partition: int, offset: int) -> int:
    """Partition and offset as one number, which sorts as they do."""
    return partition << OFFSET_BITS | offset


def _longs() -> "array[int]":
    return array("q")


@dataclass
class Claims:
    """Which rows of another table are claim checks, and the keys that they name; "" for one that names none."""

    rows: "array[int]" = field(default_factory=_longs)
    keys: Texts = field(default_factory=Texts)

    def add(self, row: int, key: str) -> None:
        self.rows.append(row)
        self.keys.append(key)


@dataclass
class Inputs:
    """Images below the committed offset."""

    places: "array[int]" = field(default_factory=_longs)
    cameras: "array[int]" = field(default_factory=lambda: array("i"))
    image_ids: Texts = field(default_factory=Texts)
    ids: Digests = field(default_factory=Digests)  # of the image ids
    times_ms: "array[int]" = field(default_factory=_longs)
    claims: Claims = field(default_factory=Claims)


@dataclass(frozen=True)
class Deleted:
    """A dead letter that says what the broker deleted unread. topic_id: of the topic that it was in."""

    partition: int
    first: int
    messages: int
    topic_id: str


@dataclass
class Outcomes:
    """Events and dead letters."""

    sources: "array[int]" = field(default_factory=_longs)  # the image's place; NOWHERE where none is named
    places: "array[int]" = field(default_factory=_longs)
    letters: "array[int]" = field(default_factory=lambda: array("b"))
    late: "array[int]" = field(default_factory=lambda: array("b"))
    labels: "array[int]" = field(default_factory=lambda: array("i"))  # verdict of an event, class of a letter
    identities: Digests = field(default_factory=Digests)
    masks: Digests = field(default_factory=Digests)  # the sha256 that the event gives of its mask
    published_us: "array[int]" = field(default_factory=_longs)
    cameras: "array[int]" = field(default_factory=lambda: array("i"))
    image_ids: Texts = field(default_factory=Texts)
    ids: Digests = field(default_factory=Digests)
    times_ms: "array[int]" = field(default_factory=_longs)


@dataclass
class Pictures:
    """Masks and heat maps."""

    places: "array[int]" = field(default_factory=_longs)
    masks: "array[int]" = field(default_factory=lambda: array("b"))  # 0: a heat map
    times_ms: "array[int]" = field(default_factory=_longs)
    identities: Digests = field(default_factory=Digests)
    contents: Digests = field(default_factory=Digests)
    cameras: "array[int]" = field(default_factory=lambda: array("i"))
    image_ids: Texts = field(default_factory=Texts)
    claims: Claims = field(default_factory=Claims)


class Books:
    """Enters records. ``committed`` has every partition of the images; None where the group has no offset.

    topic_id: of the topic of images now; "" where the broker gives topics none.
    """

    def __init__(
        self, topic: str, bucket: str, window: Window, committed: Mapping[int, int | None], topic_id: str = ""
    ) -> None:
        self.topic, self.window, self.committed = topic, window, committed
        self._bucket = f"s3://{bucket}/"
        self.first: dict[int, int] = {}  # the window's first offset in each partition
        self.closed: dict[int, int] = {}  # and the first one after it
        self.pending: Counter[int] = Counter()
        # To tell what retention took: where each topic's partitions begin, and the time of the first record read.
        self.log_starts: dict[tuple[str, int], int] = {}
        self.begins_ms: dict[tuple[str, int], int] = {}
        self.topic_id = topic_id
        self.deleted: list[Deleted] = []
        self.committed_since = dict(committed)  # as of when the log's starts were asked for
        self.inputs, self.outcomes, self.pictures = Inputs(), Outcomes(), Pictures()
        self.cameras, self.labels = Names(), Names()

    def note_starts(self, topic: str, offsets: Mapping[int, int]) -> None:
        """The first offset of each partition that the broker still keeps."""
        self.log_starts.update({(topic, partition): offset for partition, offset in offsets.items()})

    def enter_image(self, record: Record) -> bool:
        """Whether the window goes on in this partition: False from its end on."""
        partition, offset, window = record.partition, record.offset, self.window
        if partition in self.closed:
            return False
        if partition not in self.first:
            if record.timestamp_ms < window.bounds_ms[0]:
                return True
            self.first[partition] = offset
            self._begin(record)
        if record.timestamp_ms >= window.bounds_ms[1]:
            self.closed[partition] = offset
            return False
        if offset >= (self.committed[partition] or 0):
            self.pending[partition] += 1
            return True
        headers = _texts(record, "ce_id", "ce_source", "content-type")
        inputs = self.inputs
        if headers.get("content-type", "").split(";")[0].strip().lower() == CLAIM_CONTENT_TYPE:
            claim = _claim(record.value)
            inputs.claims.add(len(inputs.places), self._key(claim))
        inputs.places.append(place(partition, offset))
        inputs.cameras.append(self.cameras.number(headers.get("ce_source", "")))
        inputs.image_ids.append(headers.get("ce_id", ""))
        inputs.ids.append(_digest(headers.get("ce_id", "")))
        inputs.times_ms.append(record.timestamp_ms)
        return True

    def enter_event(self, record: Record, *, late: bool = False) -> None:
        """``late``: read once more after the masks, only so that no mask seems to have no event."""
        self._begin(record)
        try:
            event = event_of(record)
        except ValidationError:
            texts = _texts(record, "ce_source", "ce_imageid")
            camera, image_id = texts.get("ce_source", ""), texts.get("ce_imageid", "")
            self._enter_outcome(record, NOWHERE, "unreadable", "unreadable event", camera, image_id, late=late)
            return
        self._enter_outcome(
            record,
            self._source(event.source.topic, event.source.partition, event.source.offset),
            event.verdict,
            event.event_id,
            event.camera,
            event.image_id,
            late=late,
            mask=_half(event.mask.sha256),
            published_us=round(event.times.published.timestamp() * 1e6),
        )

    def enter_letter(self, record: Record) -> None:
        texts = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        label = texts.get("dlq.error.class")
        if label is None and MARKER in texts:
            return
        if label == DeletedUnread.__name__ and DELETED in texts:
            if self.window.holds(record.timestamp_ms):
                self._enter_deleted(texts)
            return
        try:
            partition, offset = int(texts["dlq.error.partition"]), int(texts["dlq.error.offset"])
            source = self._source(texts["dlq.error.topic"], partition, offset)
        except (KeyError, ValueError):
            source = NOWHERE
        label = label or "unreadable"
        headers = _texts(record, "ce_source", "ce_id")
        camera, image_id = headers.get("ce_source", ""), headers.get("ce_id", "")
        # Copies of a letter are equal as copies of an event are: they say the same of the same image.
        self._enter_outcome(record, source, label, f"dead letter {label}", camera, image_id, letter=True)

    def _enter_deleted(self, texts: Mapping[str, str]) -> None:
        try:
            partition, first, messages = (
                int(texts[name]) for name in ("dlq.error.partition", "dlq.error.offset", DELETED)
            )
            self.deleted.append(Deleted(partition, first, messages, texts.get(TOPIC_ID, "")))
        except (KeyError, ValueError):
            pass  # somebody else's: linewatch writes all of them

    def enter_picture(self, record: Record) -> None:
        self._begin(record)
        headers = _texts(record, "ce_id", "ce_source", "ce_imageid", "content-type")
        identity, _, kind = headers.get("ce_id", "").rpartition("-")
        pictures, value = self.pictures, record.value or b""
        if headers.get("content-type") == CLAIM_CONTENT_TYPE:
            claim = _claim(value)
            pictures.claims.add(len(pictures.places), self._key(claim))
            content = _half(claim.sha256) if claim else NO_DIGEST
        else:
            content = hashlib.sha256(value).digest()[:DIGEST_BYTES] if kind == "mask" else NO_DIGEST
        pictures.places.append(place(record.partition, record.offset))
        pictures.masks.append(kind == "mask")
        pictures.times_ms.append(record.timestamp_ms)
        pictures.identities.append(_digest(identity))
        pictures.contents.append(content)
        pictures.cameras.append(self.cameras.number(headers.get("ce_source", "")))
        pictures.image_ids.append(headers.get("ce_imageid", ""))

    def _enter_outcome(
        self,
        record: Record,
        source: int,
        label: str,
        identity: str,
        camera: str,
        image_id: str,
        *,
        letter: bool = False,
        late: bool = False,
        mask: bytes = NO_DIGEST,
        published_us: int = 0,
    ) -> None:
        if source == NOWHERE and not self.window.holds(record.timestamp_ms):
            return  # it names no image, so only its own time says whether it belongs here
        outcomes = self.outcomes
        outcomes.sources.append(source)
        outcomes.places.append(place(record.partition, record.offset))
        outcomes.letters.append(letter)
        outcomes.late.append(late)
        outcomes.labels.append(self.labels.number(label))
        outcomes.identities.append(_digest(identity))
        outcomes.masks.append(mask)
        outcomes.published_us.append(published_us)
        outcomes.cameras.append(self.cameras.number(camera))
        outcomes.image_ids.append(image_id)
        outcomes.ids.append(_digest(image_id))
        outcomes.times_ms.append(record.timestamp_ms)

    def _source(self, topic: str, partition: int, offset: int) -> int:
        if topic != self.topic or partition not in self.committed or not 0 <= offset < 1 << OFFSET_BITS:
            return NOWHERE
        return place(partition, offset)

    def _begin(self, record: Record) -> None:
        self.begins_ms.setdefault((record.topic, record.partition), record.timestamp_ms)

    def _key(self, claim: ClaimCheck | None) -> str:
        """ "" where no replica would look: not under these folders of this bucket, or a key that a store may refuse."""
        key = claim.uri.removeprefix(self._bucket) if claim else ""
        return key if key.startswith(PREFIXES) and plain(key) else ""


def _texts(record: Record, *wanted: str) -> dict[str, str]:
    """The headers of these names, which are read in any case; the last of a name counts, as for the worker.

    An empty one counts as none: that is what a null becomes in a dead letter.
    """
    found = {}
    for name, value in record.headers:
        name = name.lower()
        if value and name in wanted:
            found[name] = value.decode(errors="replace")
    return found


def _claim(value: bytes | None) -> ClaimCheck | None:
    try:
        return ClaimCheck.model_validate_json(value or b"")
    except ValidationError:
        return None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()[:DIGEST_BYTES]


def _half(sha256: str) -> bytes:
    try:
        return bytes.fromhex(sha256)[:DIGEST_BYTES].ljust(DIGEST_BYTES, b"\0")
    except ValueError:
        return NO_DIGEST
