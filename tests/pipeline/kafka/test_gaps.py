"""Where reading goes on, against where it ought to."""

import pytest
from kafka import TopicPartition

from pipeline.errors import DeletedUnread
from pipeline.kafka.attempts import Attempts
from pipeline.kafka.gaps import Place, Places

TP = TopicPartition("linewatch.images", 3)


@pytest.fixture
def places() -> Places:
    return Places("linewatch.images", {TP: Place(committed=10, next=10, after_last=10, end=30, topic_id="one")})


def test_records_in_a_row_are_no_gap(places: Places) -> None:
    assert places.moved(TP, 10, 14, 15) == "on"
    assert places.moved(TP, None, None, 15) == "on"
    assert places.moved(TP, None, None, None) == "on", "the client looks for its place"
    assert (places.of[TP].next, places.of[TP].after_last) == (15, 15)


def test_marks_of_transactions_between_records_are_no_gap(places: Places) -> None:
    assert places.moved(TP, 12, 14, 15) == "gap"
    assert places.gap(TP, start=0, came=12, lease=1) is None
    assert places.moved(TP, 12, 14, 15) == "on"


def test_what_the_broker_deleted_is_told_with_its_offsets(places: Places) -> None:
    assert places.moved(TP, None, None, 20) == "gap"
    record = places.gap(TP, start=18, came=20, lease=7)
    assert record is not None
    assert (record.partition, record.offset, record.lease) == (3, 17, 7)
    assert isinstance(record.error, DeletedUnread)
    assert (record.error.first, record.error.messages, record.error.topic_id) == (10, 8, "one")
    assert str(record.error).startswith("the broker has deleted 8 messages that nobody had read, offsets 10 to 17")
    assert places.moved(TP, 20, 20, 21) == "on"


def test_deleted_further_while_it_was_asked_it_counts_what_was_not_read(places: Places) -> None:
    places.moved(TP, 20, 22, 23)
    record = places.gap(TP, start=40, came=20, lease=1)
    assert record is not None
    assert record.offset == 19, "20 has been read"


def test_a_log_that_begins_again_is_told(places: Places) -> None:
    assert places.moved(TP, 0, 4, 5) == "back"


def test_only_marks_of_transactions_behind_the_last_message_are_no_lag(places: Places) -> None:
    assert places.of[TP].lag == 20
    places.moved(TP, 10, 28, 29)
    places.of[TP].committed = 29
    assert places.of[TP].lag == 1, "the client is not past the mark yet, and can't know that it is none"
    places.moved(TP, None, None, 30)
    places.gap(TP, start=0, came=30, lease=1)
    assert places.of[TP].lag == 0
    places.of[TP].committed = 25
    assert places.of[TP].lag == 5, "what is in hand is not committed"


def test_of_a_topic_that_was_made_anew_is_told_what_was_unread(places: Places) -> None:
    assert places.old("one") == []
    assert places.old("") == [], "a broker that gives topics no ids"
    ((tp, why),) = places.old("two")
    assert (tp, why.first, why.messages, why.topic_id) == (TP, 10, 20, "one")
    assert "linewatch.images was made anew, and 20 messages of the one before were not read, offsets 10 to 29" in str(
        why
    )
    assert places.of == {}


def test_what_another_member_has_is_not_told_and_what_nobody_has_is(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("pipeline.kafka.gaps.time.monotonic", lambda: now[0])
    places.left(TP)
    places.left(TopicPartition("linewatch.images", 9))
    places.forget_left("one")
    assert TP in places.of
    now[0] += 60
    places.forget_left("")
    assert TP in places.of, "the topic is gone: nobody has it"
    assert len(Places("linewatch.images", dict(places.of)).old("two")) == 1
    places.forget_left("one")
    assert places.of == {}


def test_the_topic_of_an_offset_travels_in_its_metadata() -> None:
    for one in (Attempts(topic="id"), Attempts(1, 2, "by", "id"), Attempts(1, 0, "", "id"), Attempts(3, 4, "by")):
        assert Attempts.read(one.note()) == one
