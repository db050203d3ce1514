"""From a message to the rows that keep it."""

import math
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import BigInteger, Column, Table, Text

from pipeline.contracts.broker import Record
from pipeline.contracts.deadletters import letter_in, replayed_in
from pipeline.contracts.events import Contract, Feedback, InspectionEvent, Release, in_words
from pipeline.history import tables
from pipeline.settings import Topics

C = TypeVar("C", bound=Contract)
Row = dict[str, Any]
MOST_CHARACTERS = 1024
"""Of what is looked up: more than any header has, and as much as an index takes."""


def row_of(record: Record, topics: Topics) -> tuple[Table, Row]:
    """The row that a message of an output topic becomes, and its table.

    Raises:
        ValueError: it is not what belongs on its topic. The message says why, in one line.
    """
    if record.topic == topics.events:
        table, row = tables.events, _event(record)
    elif record.topic == topics.deadletters:
        table, row = _letter(record)
    elif record.topic == topics.feedback:
        table, row = tables.feedback, _feedback(record)
    else:
        assert record.topic == topics.releases
        table, row = _release(record)
    return table, _kept(table, row)


def ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _event(record: Record) -> Row:
    event = _read(InspectionEvent, record)
    return {
        **event.model_dump(
            include={
                "event_id", "image_id", "camera", "product", "model_version", "verdict", "score", "normalised_score",
                "threshold", "width", "height", "review", "review_rate",
            }
        ),
        "at_ms": record.timestamp_ms,
        "regions": "[" + ",".join(region.model_dump_json() for region in event.regions) + "]",
        "mask_sha256": event.mask.sha256,
        **{f"{name}_ms": ms(getattr(event.times, name)) for name in ("captured", "received", "scored", "published")},
        "source_topic": event.source.topic,
        "source_partition": event.source.partition,
        "source_offset": event.source.offset,
        "partition": record.partition,
        "offset": record.offset,
    }  # fmt: skip


def _letter(record: Record) -> tuple[Table, Row]:
    try:
        letter = letter_in(record)  # first: an original may carry any header, a mark carries no error
    except KeyError as error:
        raise ValueError(f"no header {error}") from None
    if letter is None:
        partition, colon, offset = replayed_in(record).partition(":")
        if not colon:
            raise ValueError("neither a dead letter nor the mark of one that was sent again")
        row = {"letter_partition": int(partition), "letter_offset": int(offset), "at_ms": record.timestamp_ms}
        return tables.replays, row
    return tables.deadletters, {
        "partition": record.partition, "offset": record.offset, "at_ms": record.timestamp_ms,
        "error_class": letter.error_class, "message": letter.message, "camera": letter.camera,
        "product": letter.product, "image_id": letter.image_id, "source_topic": letter.topic,
        "source_partition": letter.partition, "source_offset": letter.offset, "deleted": letter.deleted,
    }  # fmt: skip


def _release(record: Record) -> tuple[Table, Row]:
    release = _read(Release, record)
    return tables.releases, {
        "partition": record.partition, "offset": record.offset, "at_ms": record.timestamp_ms,
        "product": release.product, "version": release.version, "previous": release.previous,
        "promoted_ms": ms(release.promoted_at),
    }  # fmt: skip


def _feedback(record: Record) -> Row:
    feedback = _read(Feedback, record)
    return {
        **feedback.model_dump(exclude={"boxes", "given_at"}),
        "boxes": "[" + ",".join(box.model_dump_json() for box in feedback.boxes) + "]",
        "given_ms": ms(feedback.given_at),
        "at_ms": record.timestamp_ms, "partition": record.partition, "offset": record.offset,
    }  # fmt: skip


def _read(contract: type[C], record: Record) -> C:
    try:
        return contract.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise ValueError(in_words(error)) from None


def _kept(table: Table, row: Row) -> Row:
    """The row as any database takes it: one that refuses it would be asked again for ever."""
    return {name: _value(table.c[name], value) for name, value in row.items()}


def _value(column: Column[Any], value: Any) -> Any:
    if isinstance(value, str):
        # PostgreSQL's text has no NUL, and neither has lone surrogates.
        value = value.encode(errors="replace").decode().replace("\0", "\ufffd")
        if not isinstance(column.type, Text) and len(value) > MOST_CHARACTERS:
            raise ValueError(f"{column.name} has more than {MOST_CHARACTERS} characters")
    elif isinstance(value, int | float):
        most = 1 << (63 if isinstance(column.type, BigInteger) else 31)
        if not (math.isfinite(value) if isinstance(value, float) else abs(value) < most):
            raise ValueError(f"{column.name} is {value}")
    return value
