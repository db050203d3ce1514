"""Dead letters: the original message untouched, with what went wrong beside it. Nothing is dropped instead."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.cloudevents import Headers, rfc3339
from pipeline.errors import DeadLetter

PREFIX = "dlq."
MARKER = "dlq.replayed.offset"
MESSAGE_LIMIT = 500


def dead_letter(record: Record, error: DeadLetter, topic: str) -> Outgoing:
    """The message for the dead-letter topic: key, value and headers as they came, plus ``dlq.error.*``.

    kafka-python can't send a header without a value, nor a message without both key and value: both become empty.
    """
    facts = {
        "dlq.error.topic": record.topic,
        "dlq.error.partition": str(record.partition),
        "dlq.error.offset": str(record.offset),
        "dlq.error.class": error.error_class,
        "dlq.error.message": str(error)[:MESSAGE_LIMIT],
        "dlq.error.time": rfc3339(datetime.now(UTC)),
    }
    value = b"" if record.key is None and record.value is None else record.value
    headers = tuple((name, text or b"") for name, text in record.headers)
    return Outgoing(topic, record.key, value, (*headers, *((name, text.encode()) for name, text in facts.items())))


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

    def original(self) -> Outgoing:
        """The message as it was first sent."""
        headers: Headers = tuple((n, v) for n, v in self.record.headers if not n.startswith(PREFIX))
        return Outgoing(self.topic, self.record.key, self.record.value, headers)

    def marker(self) -> Outgoing:
        """Says, in the dead-letter topic itself, that this letter was sent again."""
        place = f"{self.record.partition}:{self.record.offset}"
        return Outgoing(self.record.topic, self.record.key, b"", ((MARKER, place.encode()),))


def pending(records: Iterable[Record]) -> list[Letter]:
    """Letters that were not sent again yet, oldest first, from all records of the dead-letter topic."""
    letters: dict[str, Letter] = {}
    replayed: set[str] = set()
    for record in records:
        texts = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        if "dlq.error.class" in texts:  # first: an original may carry any header, a marker carries no error
            letters[f"{record.partition}:{record.offset}"] = _letter(record, texts)
        elif MARKER in texts:
            replayed.add(texts[MARKER])
    rest = [letter for place, letter in letters.items() if place not in replayed]
    return sorted(rest, key=lambda letter: letter.time)


def _letter(record: Record, texts: dict[str, str]) -> Letter:
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
    )
