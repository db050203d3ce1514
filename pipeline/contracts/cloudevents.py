"""CloudEvents 1.0, Kafka protocol binding, binary content mode: attributes are headers, the value is the data."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.errors import HeadersRefused

Headers = tuple[tuple[str, bytes], ...]
REQUIRED = ("ce_specversion", "ce_id", "ce_source", "ce_type")
MAX_HEADER_BYTES = 1024


@dataclass(frozen=True)
class Envelope:
    """The CloudEvents attributes of one message."""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    content_type: str
    traceparent: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)

    def headers(self) -> Headers:
        """Kafka headers, names in lower case, values in UTF-8."""
        pairs = {
            "ce_specversion": "1.0",
            "ce_id": self.id,
            "ce_source": self.source,
            "ce_type": self.type,
            "ce_subject": self.subject,
            "ce_time": rfc3339(self.time),
            "content-type": self.content_type,
            **({"traceparent": self.traceparent} if self.traceparent else {}),
            **{f"ce_{name}": value for name, value in self.extensions.items()},
        }
        return tuple((name, value.encode()) for name, value in pairs.items())


def envelope(headers: Iterable[tuple[str, bytes | None]], arrived: datetime) -> Envelope:
    """The envelope of a consumed message. ``arrived`` stands in for a missing ``ce_time``.

    Raises:
        HeadersRefused: a required attribute is missing, too long, not UTF-8, or malformed; any name is not UTF-8.
    """
    texts: dict[str, str] = {}
    for name, value in headers:
        if not _is_text(name):
            raise HeadersRefused(f"the header name {name[:40].encode(errors='surrogateescape')!r} is not UTF-8")
        if value is None:
            continue
        if len(value) > MAX_HEADER_BYTES:
            if name.lower().startswith("ce_") or name.lower() in ("content-type", "traceparent"):
                raise HeadersRefused(f"header {name[:40]!r} is longer than {MAX_HEADER_BYTES} bytes")
            continue
        try:
            texts[name.lower()] = value.decode()
        except UnicodeDecodeError:
            if name.lower().startswith("ce_"):
                raise HeadersRefused(f"header {name!r} is not UTF-8") from None
    missing = [name for name in (*REQUIRED, "ce_subject") if not texts.get(name)]
    if missing:
        raise HeadersRefused(f"not a CloudEvents message in binary mode: no {', '.join(missing)} header")
    if texts["ce_specversion"] != "1.0":
        raise HeadersRefused(f"CloudEvents version {texts['ce_specversion']!r} is not 1.0")
    known = {*REQUIRED, "ce_subject", "ce_time", "content-type", "traceparent"}
    return Envelope(
        id=texts["ce_id"],
        source=texts["ce_source"],
        type=texts["ce_type"],
        subject=texts["ce_subject"],
        time=_time(texts["ce_time"]) if "ce_time" in texts else arrived,
        content_type=texts.get("content-type", "application/octet-stream").split(";")[0].strip().lower(),
        traceparent=texts.get("traceparent"),
        extensions={n[3:]: v for n, v in texts.items() if n.startswith("ce_") and n not in known},
    )


def _is_text(name: str) -> bool:
    """Bytes that are not UTF-8 are lone surrogates in a name (pipeline.kafka.header_names)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_traceparent() -> str:
    """A fresh W3C trace context, sampled."""
    return f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise HeadersRefused(f"ce_time {text[:60]!r} is not an RFC 3339 time") from None
    if time.tzinfo is None:
        raise HeadersRefused(f"ce_time {text[:60]!r} has no time zone")
    return time
