"""Dead letters: the original message untouched, with what went wrong beside it. Nothing is dropped instead."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.cloudevents import Headers, rfc3339
from pipeline.errors import DeadLetter, DeletedUnread

PREFIX = "dlq."
MARKER = "dlq.replayed.offset"
DELETED = "dlq.deleted.messages"
TOPIC_ID = "dlq.deleted.topic.id"
VALUE_AT = "dlq.value.at"
MESSAGE_LIMIT = 500


def dead_letter(record: Record, error: DeadLetter, topic: str) -> Outgoing:
    """The message for the dead-letter topic: key, value and headers as they came, plus ``dlq.error.*``.

    kafka-python can't send a header without a value, nor a message without both key and value: both become empty.
    """
    if isinstance(error, DeletedUnread):
        return letter_of_deleted(record.topic, record.partition, error, topic)
    facts = _facts(record.topic, record.partition, record.offset, error)
    value = b"" if record.key is None and record.value is None else record.value
    headers = tuple((name, text or b"") for name, text in record.headers)
    return Outgoing(topic, record.key, value, (*headers, *_encoded(facts)))


def letter_of_deleted(topic: str, partition: int, error: DeletedUnread, letters: str) -> Outgoing:
    """One message for all that were deleted: nothing is left of them but how many they were, from which offset on."""
    facts = _facts(topic, partition, error.first, error) | {DELETED: str(error.messages), TOPIC_ID: error.topic_id}
    return Outgoing(letters, None, b"", _encoded(facts))


def without_value(letter: Outgoing, key: str) -> Outgoing:
    """The same letter where its topic does not take it whole: its value is in the store, under ``key``."""
    return Outgoing(letter.topic, letter.key, b"", (*letter.headers, (VALUE_AT, key.encode())))


def _facts(topic: str, partition: int, offset: int, error: DeadLetter) -> dict[str, str]:
    return {
        "dlq.error.topic": topic,
        "dlq.error.partition": str(partition),
        "dlq.error.offset": str(offset),
        "dlq.error.class": error.error_class,
        "dlq.error.message": str(error)[:MESSAGE_LIMIT],
        "dlq.error.time": rfc3339(datetime.now(UTC)),
    }


def _encoded(facts: dict[str, str]) -> Headers:
    return tuple((name, text.encode()) for name, text in facts.items())


@dataclass(frozen=True)
class Letter:
    """A dead letter as read back from its topic."""

    record: Record
    topic: str
    partition: int
    offset: int
    error_class: str
    message: str
    time: str
    image_id: str
    product: str
    camera: str
    deleted: int = 0  # messages of which nothing is left
    value_at: str = ""  # where its value is in the store

    def original(self, value: bytes | None = None) -> Outgoing:
        """The message as it was first sent; with the ``value`` from the store where that is there."""
        assert not self.deleted
        assert bool(self.value_at) == (value is not None)
        headers: Headers = tuple((n, v) for n, v in self.record.headers if not n.startswith(PREFIX))
        return Outgoing(self.topic, self.record.key, value if self.value_at else self.record.value, headers)

    def marker(self) -> Outgoing:
        """Says, in the dead-letter topic itself, that this letter was sent again."""
        place = f"{self.record.partition}:{self.record.offset}"
        return Outgoing(self.record.topic, self.record.key, b"", ((MARKER, place.encode()),))


def pending(records: Iterable[Record]) -> list[Letter]:
    """Letters that were not sent again yet, oldest first, from all records of the dead-letter topic."""
    letters: dict[str, Letter] = {}
    replayed: set[str] = set()
    for record in records:
        if letter := letter_in(record):
            letters[f"{record.partition}:{record.offset}"] = letter
        elif place := replayed_in(record):
            replayed.add(place)
    rest = [letter for place, letter in letters.items() if place not in replayed]
    return sorted(rest, key=lambda letter: letter.time)


def replayed_in(record: Record) -> str:
    """The place, partition:offset, of the letter that a message marks as sent again; "" where it marks none."""
    return next(((value or b"").decode(errors="replace") for name, value in record.headers if name == MARKER), "")


def letter_in(record: Record) -> Letter | None:
    """The letter that a message of the topic is; None where it is a mark. An original may carry any header, a mark
    carries no error.
    """
    texts = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    if "dlq.error.class" not in texts:
        return None
    return Letter(
        record=record,
        topic=texts["dlq.error.topic"],
        partition=int(texts["dlq.error.partition"]),
        offset=int(texts["dlq.error.offset"]),
        error_class=texts["dlq.error.class"],
        message=texts["dlq.error.message"],
        time=texts["dlq.error.time"],
        image_id=texts.get("ce_id", ""),
        product=texts.get("ce_subject", ""),
        camera=texts.get("ce_source", ""),
        deleted=int(texts.get(DELETED, "0")) if texts["dlq.error.class"] == DeletedUnread.__name__ else 0,
        # The last of all: an original may have such a header too.
        value_at=texts[VALUE_AT] if record.headers[-1][0] == VALUE_AT else "",
    )
