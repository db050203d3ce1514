"""A dead letter keeps the original whole, can be sent again once, and never hides another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.broker import Record
from pipeline.contracts.deadletters import MARKER, dead_letter, pending
from pipeline.errors import ImageBroken, ProductUnknown
from pipeline.fakes import MemoryBroker
from tests.pipeline.tiny import envelope

TOPIC = "linewatch.deadletters"
HEADERS = envelope("img-1").headers()


def record(key=b"/plant/cam1", value=b"not an image", headers=HEADERS, topic="linewatch.images", offset=7) -> Record:
    return Record(topic, 3, offset, key, value, headers, 1_700_000_000_000)


NO_MODEL = ProductUnknown("no model")


def buried(*originals: Record, error=NO_MODEL) -> list[Record]:
    """Dead letters as they are read back."""
    broker = MemoryBroker(partitions=1)
    session = broker.session("linewatch.images")
    session.commit([dead_letter(original, error, TOPIC) for original in originals], [])
    return broker.read(TOPIC)


def test_key_value_and_headers_come_through_untouched_with_the_error_beside_them() -> None:
    letter = dead_letter(record(), ImageBroken("UnreadableImage", "truncated"), TOPIC)
    assert (letter.topic, letter.key, letter.value) == (TOPIC, b"/plant/cam1", b"not an image")
    assert letter.headers[: len(HEADERS)] == HEADERS
    facts = dict(letter.headers[len(HEADERS) :])
    assert facts.pop("dlq.error.time").endswith(b"Z")
    assert facts == {
        "dlq.error.topic": b"linewatch.images",
        "dlq.error.partition": b"3",
        "dlq.error.offset": b"7",
        "dlq.error.class": b"UnreadableImage",
        "dlq.error.message": b"truncated",
    }


def test_the_original_is_what_was_first_sent() -> None:
    (letter,) = pending(buried(record()))
    original = letter.original()
    assert (original.topic, original.key, original.value) == ("linewatch.images", b"/plant/cam1", b"not an image")
    assert original.headers == HEADERS
    assert (letter.image_id, letter.product, letter.camera) == ("img-1", "bottle", "/plant/cam1")
    assert (letter.topic, letter.partition, letter.offset, letter.error_class) == (
        "linewatch.images",
        3,
        7,
        "ProductUnknown",
    )


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (None, b"x", HEADERS),
        (b"k", None, HEADERS),
        (None, None, ()),
        (None, None, (("x", None), ("y", b""))),
        (b"k", b"v", (("ce_id", None), ("ce_id", b"\xff\xfe"), ("", b"z"))),
    ],
)
def test_what_other_clients_may_send_can_be_buried_listed_and_sent_again(key, value, headers) -> None:
    (letter,) = pending(buried(record(key, value, headers)))
    broker = MemoryBroker(partitions=1)
    session = broker.session("linewatch.images")
    session.commit([letter.original(), letter.marker()], [])  # raises where kafka-python would
    (original,) = broker.read("linewatch.images")
    assert original.key == key
    assert (original.value or None) == value
    assert [(n, v or None) for n, v in original.headers] == [(n, v or None) for n, v in headers]


def test_a_letter_that_was_sent_again_is_pending_no_more() -> None:
    records = buried(record(offset=1), record(offset=2))
    first, second = pending(records)
    broker = MemoryBroker(partitions=1, topics={TOPIC: records})
    broker.produce(first.marker())
    assert [letter.offset for letter in pending(broker.read(TOPIC))] == [second.offset]
    broker.produce(second.marker())
    assert pending(broker.read(TOPIC)) == []


def test_an_original_that_carries_a_marker_hides_no_letter() -> None:
    forged = record(headers=(*HEADERS, (MARKER, b"0:0")), offset=9)
    letters = pending(buried(record(offset=1), forged))
    assert [letter.offset for letter in letters] == [1, 9]


def test_an_original_that_carries_an_error_of_its_own_is_listed_with_ours() -> None:
    (letter,) = pending(buried(record(headers=(("dlq.error.class", b"Forged"), ("dlq.error.offset", b"x")))))
    assert (letter.error_class, letter.offset) == ("ProductUnknown", 7)


def test_a_long_reason_is_cut() -> None:
    (letter,) = pending(buried(record(), error=ProductUnknown("x" * 5000)))
    assert len(letter.message) == 500


def test_the_oldest_come_first_whatever_the_partition() -> None:
    letters = pending(reversed(buried(record(offset=1), record(offset=2), record(offset=3))))
    assert [letter.time for letter in letters] == sorted(letter.time for letter in letters)


header_lists = st.lists(st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=30)), max_size=6).map(tuple)


@given(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=40), header_lists)
def test_any_message_is_listed_once_and_its_marker_retires_it(key, value, headers) -> None:
    records = buried(record(key, value, headers))
    (letter,) = pending(records)
    broker = MemoryBroker(partitions=1, topics={TOPIC: records})
    broker.produce(letter.marker())
    assert pending(broker.read(TOPIC)) == []
