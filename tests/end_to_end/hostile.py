"""Messages that can't become an event, each with the class that its dead letter must carry."""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, IMAGE_CAPTURED, ClaimCheck

BROKEN_JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xdb\x00\x43\x00" + b"\x08" * 40


@dataclass(frozen=True)
class Hostile:
    name: str
    value: bytes | None
    headers: list[tuple[str, bytes]]
    error_class: str


def huge_png_header() -> bytes:
    """A small PNG file whose header claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def headers(name: str, product: str = "flange", content_type: str = "image/jpeg") -> list[tuple[str, bytes]]:
    envelope = Envelope(f"hostile-{name}", "/hostile/cam", IMAGE_CAPTURED, product, datetime.now(UTC), content_type)
    return list(envelope.headers())


def cases(good: bytes) -> list[Hostile]:
    """One of each; ``good`` is a readable image, whose claim check points at nothing yet."""
    sha256 = hashlib.sha256(good).hexdigest()
    claim = ClaimCheck(
        uri=f"s3://linewatch/images/elsewhere/{sha256}", sha256=sha256, size=len(good), content_type="image/jpeg"
    )
    claimed = claim.model_dump_json().encode()
    return [
        Hostile("broken-jpeg", BROKEN_JPEG, headers("broken-jpeg"), "UnreadableImage"),
        Hostile("half-jpeg", good[: len(good) // 2], headers("half-jpeg"), "UnreadableImage"),
        Hostile("text", b"good morning, this is no image", headers("text"), "UnsupportedFormat"),
        Hostile("huge", huge_png_header(), headers("huge", content_type="image/png"), "ImageTooLarge"),
        Hostile("empty", b"", headers("empty"), "EmptyImage"),
        Hostile("null", None, headers("null"), "EmptyImage"),
        Hostile("unknown-product", good, headers("unknown-product", "newcomer"), "ProductUnknown"),
        Hostile("no-headers", good, [], "HeadersRefused"),
        Hostile("claim", claimed, headers("claim", content_type=CLAIM_CONTENT_TYPE), "ClaimMissing"),
    ]
