"""What was deleted unread counts as lost, once; and a topic that was made anew is no false alarm."""

from dataclasses import replace
from datetime import timedelta

from jobs.audit.report import Example
from jobs.audit.window import Window
from tests.jobs.fabricated import NOON, V2, Stream, inspected_stream, ms


def lost(stream: Stream, **options) -> tuple[int, int]:
    audit = stream.audit(**options)
    assert audit.total("lost") == audit.troubles["lost"]
    return audit.troubles["lost"], audit.troubles["deleted_unread"]


def test_a_letter_of_what_was_deleted_unread_counts_its_messages_as_lost() -> None:
    stream = inspected_stream()
    stream.delete_unread(1, 40, 7)
    audit = stream.audit(committed={0: 6, 1: 6})
    assert (audit.troubles["lost"], audit.troubles["deleted_unread"], audit.total("lost")) == (7, 7, 7)
    assert audit.off == ["lost", "deleted_unread"]
    assert [one.lost for one in audit.partitions] == [0, 7]
    assert audit.examples["deleted_unread"] == [Example("linewatch.images", 1, 40, "", "")]
    assert audit.deadletters == {"UnreadableImage": 1}, "it is no outcome of an image"
    assert audit.notes[0].startswith("7 messages of linewatch.images were deleted before they were read")


def test_what_no_replica_has_found_yet_is_what_lies_between_the_group_and_the_log() -> None:
    stream = inspected_stream()
    stream.starts["linewatch.images"] = {0: 4, 1: 0}
    assert lost(stream, committed={0: 1, 1: 6}) == (3, 3)
    assert lost(stream, committed={0: 4, 1: 6}) == (0, 0), "what was read may be deleted"
    assert lost(stream, committed={0: None, 1: 6}) == (0, 0), "of a group that has read nothing nobody knows"


def test_each_deleted_offset_counts_once_however_often_it_is_told() -> None:
    stream = inspected_stream()
    stream.starts["linewatch.images"] = {0: 4, 1: 0}
    stream.delete_unread(0, 2, 2)
    stream.delete_unread(0, 2, 2)
    assert lost(stream, committed={0: 1, 1: 6}) == (3, 3)


def test_those_of_a_topic_that_was_made_anew_count_beside_those_of_the_new_one() -> None:
    stream = inspected_stream()
    stream.topic_id = "new"
    stream.delete_unread(0, 2, 2, "old")
    stream.delete_unread(0, 2, 2, "new")
    assert lost(stream) == (4, 4)


def test_a_window_counts_what_was_found_within_it() -> None:
    stream = inspected_stream()
    stream.delete_unread(0, 90, 5, time_ms=ms(3600))
    before = Window.between(NOON - timedelta(hours=1), NOON + timedelta(minutes=30))
    assert lost(stream, window=before) == (0, 0)
    stream.starts["linewatch.images"] = {0: 4, 1: 0}
    assert lost(stream, window=before, committed={0: 1, 1: 6}) == (0, 0), "since when it is gone nobody knows"


def test_events_of_a_topic_before_are_those_of_no_image_at_the_same_offsets() -> None:
    stream = inspected_stream()
    stream.made_anew()
    for number in range(3):
        stream.inspect(stream.image(name=f"new-{number}"))
    audit = stream.audit()
    assert audit.right, audit.troubles
    assert (audit.total("images"), audit.total("events"), audit.masks) == (3, 3, 3)
    assert [note for note in audit.notes if "was made anew" in note]


def test_an_image_of_the_new_topic_is_not_covered_by_an_event_of_the_old_one() -> None:
    stream = inspected_stream()
    stream.made_anew()
    stream.image(name="new-0")
    assert stream.audit().off == ["lost"]


def test_a_dead_letter_of_the_old_topic_covers_none_either() -> None:
    stream = Stream()
    stream.refuse(stream.image(name="old-0"))
    stream.made_anew()
    stream.image(name="new-0")
    assert stream.audit().off == ["lost"]


def test_an_image_that_is_sent_to_the_new_topic_again_has_an_outcome_of_its_own() -> None:
    stream = Stream()
    stream.inspect(stream.image(name="a"))
    stream.inspect(stream.image(name="b"))
    stream.made_anew()
    stream.image(name="c")
    stream.images[-1] = replace(stream.images[-1], timestamp_ms=ms(600))
    again = stream.image(name="a")
    stream.images[-1] = again = replace(again, timestamp_ms=ms(601))
    assert stream.audit().troubles["lost"] == 2
    stream.inspect(stream.images[0])
    stream.inspect(again, V2)
    assert stream.audit().right, stream.audit().troubles


def test_an_event_that_names_one_image_and_the_place_of_another_is_not_explained() -> None:
    stream = inspected_stream()
    wrong = stream.event(stream.images[0])
    source = stream.images[1]
    stream.events.remove(wrong)
    stream.event(replace(stream.images[0], offset=source.offset))
    assert stream.audit().off == ["events_unexplained"]


def test_an_original_whose_header_was_null_is_the_same_image_in_its_dead_letter() -> None:
    stream = Stream()
    image = stream.image()
    image = stream.images[0] = replace(image, headers=(*image.headers, ("ce_id", None)))  # type: ignore[arg-type]
    stream.refuse(image, "HeadersRefused")
    assert stream.audit().right, stream.audit().troubles
