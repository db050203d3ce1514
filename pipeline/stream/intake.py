"""From a consumed message to a captured image, or to the reason why it can't be one."""

from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.contracts.broker import Record
from pipeline.contracts.cloudevents import MAX_HEADER_BYTES, Envelope, envelope
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, IMAGE_CAPTURED
from pipeline.contracts.names import camera_source, product_name
from pipeline.errors import HeadersRefused, NameRefused
from pipeline.settings import Limits
from pipeline.storage import claims
from pipeline.storage.store import ObjectStore


@dataclass(frozen=True)
class Captured:
    """A message that names its image, camera and product, with the encoded image."""

    record: Record
    envelope: Envelope
    data: bytes
    received_at: datetime


def captured(record: Record, store: ObjectStore, limits: Limits) -> Captured:
    """Reads the envelope, checks the names, and fetches the image where the value is a claim check.

    Raises:
        HeadersRefused, ClaimRefused, ClaimMissing: this message is a dead letter.
        StoreUnavailable: wait and try again.
    """
    received_at = datetime.now(UTC)
    # The broker's timestamp may be the producer's own, and anything.
    arrived = datetime.fromtimestamp(min(max(record.timestamp_ms / 1000, 0), received_at.timestamp()), UTC)
    if len(record.key or b"") > MAX_HEADER_BYTES:  # events and masks carry it too
        raise HeadersRefused(f"a message key of {len(record.key or b'')} bytes: the limit is {MAX_HEADER_BYTES}")
    message = envelope(record.headers, arrived)
    if message.type != IMAGE_CAPTURED:
        raise HeadersRefused(f"ce_type {message.type[:80]!r} is not {IMAGE_CAPTURED}")
    try:
        product_name(message.subject)
        if camera_source(message.source) != message.source:
            raise HeadersRefused(f"ce_source {message.source[:80]!r} is not a path such as /plant1/line3/cam1")
    except NameRefused as error:
        raise HeadersRefused(f"ce_subject or ce_source: {error}") from None
    data = record.value or b""
    if message.content_type == CLAIM_CONTENT_TYPE:
        data = claims.redeem(data, store, limits)
    return Captured(record, message, data, received_at)
