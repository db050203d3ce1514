"""Which images an audit counts: those of its window, and those that the broker still keeps."""

from dataclasses import replace

import pytest

from jobs.audit.window import Window
from jobs.past.since import moment
from tests.jobs.audit.test_audit import event_that_is_none, letter_that_is_none, lose_one, mask_of_no_event, troubles
from tests.jobs.fabricated import NOON, Stream, inspected_stream, ms
from tests.pipeline.line import EVENTS, IMAGES


@pytest.fixture
def stream() -> Stream:
    return inspected_stream()


def test_a_window_counts_the_images_that_came_within_it(stream: Stream) -> None:
    """Times are the offsets, in seconds."""
    audit = stream.audit(Window(ms(2), ms(4)))
    assert audit.right
    assert [(one.first, one.end, one.images, one.events) for one in audit.partitions] == [(2, 5, 2, 2)] * 2
    assert (audit.since, audit.until) == ("2026-01-31T12:00:02.000Z", "2026-01-31T12:00:04.000Z")
    assert (audit.masks, audit.deadletters) == (4, {})
    stream.mask(stream.images[0], claim=True)  # the second one of an image before it, and its object is gone
    stream.store.objects.clear()
    assert troubles(stream, window=Window(ms(2), ms(4))) == {}
    del stream.events[0]
    assert troubles(stream, window=Window(ms(2), ms(4))) == {}
    stream.masks[2] = replace(stream.masks[2], value=b"not the mask")
    assert troubles(stream, window=Window(ms(2), ms(4))) == {"masks_wrong": 1}
    assert troubles(stream, window=Window(ms(2), ms(3))) == {}
    assert troubles(stream, window=Window(ms(99))) == {}


def test_a_window_begins_at_its_first_image_even_if_a_later_one_is_older(stream: Stream) -> None:
    stream.images[2] = replace(stream.images[2], timestamp_ms=ms(-60))
    lose_one(stream)
    assert troubles(stream, window=Window(ms(1))) == {"lost": 1}


def test_strays_outside_the_window_are_not_counted(stream: Stream) -> None:
    event_that_is_none(stream)
    letter_that_is_none(stream)
    mask_of_no_event(stream)
    assert troubles(stream, window=Window(ms(6))) == {}
    assert troubles(stream, window=Window(None, ms(0))) == {}
    assert set(troubles(stream, window=Window(ms(0)))) == {"events_unexplained", "masks_orphaned"}


def test_outcomes_of_images_that_the_broker_has_deleted_are_not_unexplained(stream: Stream) -> None:
    del stream.images[:2]
    audit = stream.audit()
    assert audit.right
    assert [(one.first, one.images, one.events) for one in audit.partitions] == [(3, 2, 2), (0, 4, 3)]
    del stream.images[:]
    assert stream.audit().right


def test_images_that_the_broker_deleted_while_it_was_read_are_not_counted(stream: Stream) -> None:
    del stream.images[1], stream.events[0], stream.masks[0]
    stream.starts[IMAGES] = {0: 3, 1: 0}
    assert troubles(stream) == {}


def test_a_note_says_when_events_were_deleted_before_their_images(stream: Stream) -> None:
    del stream.events[0], stream.masks[0]
    stream.starts[EVENTS] = {0: 1}
    audit = stream.audit()
    assert audit.troubles["lost"] == 1
    (note,) = audit.notes
    assert "linewatch.events is whole from 2026-01-31T12:00:02.100Z on" in note
    since = moment("2026-01-31T12:00:02.100Z", NOON)
    assert stream.audit(Window.between(since, None)).notes == []
