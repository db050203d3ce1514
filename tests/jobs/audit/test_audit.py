"""An audit finds each kind of trouble, and nothing where there is none."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from jobs.audit.report import TROUBLES, Example
from pipeline.contracts.events import Times
from tests.jobs.fabricated import NOON, V2, Stream, inspected_stream


@pytest.fixture
def stream() -> Stream:
    return inspected_stream()


def troubles(stream: Stream, **options) -> dict[str, int]:
    return {kind: number for kind, number in stream.audit(**options).troubles.items() if number}


def test_a_stream_without_trouble_is_right(stream: Stream) -> None:
    audit = stream.audit()
    assert audit.right
    assert set(audit.troubles) == set(TROUBLES)
    assert not any(audit.troubles.values())
    assert audit.examples == {}
    assert audit.notes == []
    assert [(one.partition, one.first, one.end) for one in audit.partitions] == [(0, 0, 6), (1, 0, 6)]
    assert [(one.images, one.events, one.deadletters) for one in audit.partitions] == [(4, 4, 0), (4, 3, 1)]
    assert audit.verdicts == {"OK": 7}
    assert audit.deadletters == {"UnreadableImage": 1}
    assert (audit.masks, audit.heat_maps) == (7, 1)
    figures = audit.figures()
    assert (figures["right"], figures["off"], figures["images"], figures["lost"]) == (True, [], 8, 0)


def test_a_count_of_nothing_says_so(stream: Stream) -> None:
    assert Stream().audit(committed={0: None, 1: None}).notes == [
        "no image came within the window: nothing was counted"
    ]
    (note,) = stream.audit(committed={0: None, 1: None}).notes
    assert note.startswith("group 'linewatch' has committed nothing, so every image is pending")


def lose_one(stream: Stream) -> None:
    del stream.events[2], stream.masks[2]


def lose_a_letter(stream: Stream) -> None:
    stream.letters.clear()


def double_an_event(stream: Stream) -> None:
    stream.event(stream.images[2])


def double_a_letter(stream: Stream) -> None:
    stream.refuse(stream.images[7])


def refuse_for_two_reasons(stream: Stream) -> None:
    stream.refuse(stream.images[7], "ProductUnknown")


def inspect_by_two_versions(stream: Stream) -> None:
    stream.inspect(stream.images[2], V2)


def inspect_and_refuse(stream: Stream) -> None:
    stream.refuse(stream.images[2])


def copy_and_refuse(stream: Stream) -> None:
    stream.event(stream.images[2])
    stream.refuse(stream.images[2])


def event_of_a_control_record(stream: Stream) -> None:
    stream.inspect(replace(stream.images[2], offset=1))


def letter_of_a_control_record(stream: Stream) -> None:
    stream.refuse(replace(stream.images[2], offset=1))


def event_of_another_topic(stream: Stream) -> None:
    stream.inspect(replace(stream.images[2], topic="other.images"))
    stream.masks.pop()


def event_of_no_partition(stream: Stream) -> None:
    stream.inspect(replace(stream.images[2], partition=9))
    stream.masks.pop()


def event_of_no_offset(stream: Stream) -> None:
    stream.inspect(replace(stream.images[2], offset=-2))
    stream.masks.pop()


def event_that_is_none(stream: Stream) -> None:
    stream.events.append(replace(stream.events[0], offset=99, value=b"{}"))


def letter_that_is_none(stream: Stream) -> None:
    stream.letters.append(replace(stream.letters[0], offset=99, headers=(("ce_id", b"img"),)))


def lose_a_mask(stream: Stream) -> None:
    del stream.masks[2]


def double_a_mask(stream: Stream) -> None:
    stream.mask(stream.images[2])


def spoil_a_mask(stream: Stream) -> None:
    stream.masks[2] = replace(stream.masks[2], value=b"not the mask")


def spoil_a_mask_in_s3(stream: Stream) -> None:
    del stream.masks[2]
    stream.mask(stream.images[2], mask=b"not the mask", claim=True)


def malformed_claim_of_a_mask(stream: Stream) -> None:
    stream.mask(stream.images[2], claim=True)
    stream.masks[2] = replace(stream.masks.pop(), value=b"{")


def mask_of_no_event(stream: Stream) -> None:
    stream.mask(stream.images[2], V2)


def heat_map_of_no_event(stream: Stream) -> None:
    stream.mask(stream.images[2], V2, kind="heat")


def mask_object_gone(stream: Stream) -> None:
    del stream.masks[2]
    stream.mask(stream.images[2], claim=True)
    stream.store.objects.clear()


def heat_object_gone(stream: Stream) -> None:
    stream.mask(stream.images[2], kind="heat", claim=True)
    stream.store.objects.clear()


def image_object_gone(stream: Stream) -> None:
    stream.inspect(stream.image(0, claim=True))
    stream.store.objects.clear()


def mask_object_in_another_bucket(stream: Stream) -> None:
    del stream.masks[2]
    stream.store.bucket = "other"
    stream.mask(stream.images[2], claim=True)


def mask_object_under_a_key_that_stores_refuse(stream: Stream) -> None:
    stream.mask(stream.images[2], claim=True)
    claim = stream.masks.pop()
    stream.masks[2] = replace(claim, value=(claim.value or b"").replace(b"/bottle/", b"/bot tle/"))
    stream.store.objects = {key.replace("bottle", "bot tle"): data for key, data in stream.store.objects.items()}


IMAGES, EVENTS, LETTERS, MASKS = (f"linewatch.{name}" for name in ("images", "events", "deadletters", "masks"))
THIRD = Example(IMAGES, 0, 3, "img-0-3", "/plant/cam0")
REFUSED = Example(IMAGES, 1, 5, "img-1-5", "/plant/cam1")


@pytest.mark.parametrize(
    ("spoil", "found", "example"),
    [
        (lose_one, {"lost": 1}, THIRD),
        (lose_a_letter, {"lost": 1}, REFUSED),
        (double_an_event, {"doubled_same_id": 1}, THIRD),
        (double_a_letter, {"doubled_same_id": 1}, REFUSED),
        (refuse_for_two_reasons, {"doubled_other": 1}, REFUSED),
        (inspect_by_two_versions, {"doubled_other": 1}, THIRD),
        (inspect_and_refuse, {"doubled_other": 1}, THIRD),
        (copy_and_refuse, {"doubled_other": 1}, THIRD),
        (event_of_a_control_record, {"events_unexplained": 1}, (EVENTS, 7, "img-0-3")),
        (letter_of_a_control_record, {"events_unexplained": 1}, (LETTERS, 1, "img-0-3")),
        (event_of_another_topic, {"events_unexplained": 1}, (EVENTS, 7, "img-0-3")),
        (event_of_no_partition, {"events_unexplained": 1}, (EVENTS, 7, "img-0-3")),
        (event_of_no_offset, {"events_unexplained": 1}, (EVENTS, 7, "img-0-3")),
        (event_that_is_none, {"events_unexplained": 1}, (EVENTS, 99, "img-0-0")),
        (letter_that_is_none, {"events_unexplained": 1}, (LETTERS, 99, "img")),
        (lose_a_mask, {"masks_missing": 1}, THIRD),
        (double_a_mask, {"masks_doubled": 1}, THIRD),
        (spoil_a_mask, {"masks_wrong": 1}, (MASKS, 2, "img-0-3")),
        (spoil_a_mask_in_s3, {"masks_wrong": 1}, (MASKS, 7, "img-0-3")),
        (malformed_claim_of_a_mask, {"masks_wrong": 1, "objects_missing": 1}, (MASKS, 8, "img-0-3")),
        (mask_of_no_event, {"masks_orphaned": 1}, (MASKS, 8, "img-0-3")),
        (heat_map_of_no_event, {"masks_orphaned": 1}, (MASKS, 8, "img-0-3")),
        (mask_object_gone, {"objects_missing": 1}, (MASKS, 7, "img-0-3")),
        (heat_object_gone, {"objects_missing": 1}, (MASKS, 8, "img-0-3")),
        (image_object_gone, {"objects_missing": 1}, Example(IMAGES, 0, 6, "img-0-6", "/plant/cam0")),
        (mask_object_under_a_key_that_stores_refuse, {"objects_missing": 1}, (MASKS, 8, "img-0-3")),
        (mask_object_in_another_bucket, {"objects_missing": 1}, (MASKS, 7, "img-0-3")),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_trouble_is_found_and_no_other(
    stream: Stream, spoil: Callable[[Stream], None], found: dict[str, int], example: Example | tuple[str, int, str]
) -> None:
    spoil(stream)
    audit = stream.audit()
    assert {kind: number for kind, number in audit.troubles.items() if number} == found
    assert not audit.right
    assert audit.off == [kind for kind in TROUBLES if found.get(kind)]
    first = audit.examples[audit.off[0]][0]
    if isinstance(example, Example):
        assert first == example
    else:
        assert (first.topic, first.offset, first.image_id) == example
    assert audit.figures()[audit.off[0]] == 1


def test_what_is_not_committed_is_pending_and_neither_lost_nor_doubled(stream: Stream) -> None:
    stream.events.clear()
    stream.masks.clear()
    stream.inspect(stream.images[0])
    stream.inspect(stream.images[3])
    stream.inspect(stream.images[3], V2)
    audit = stream.audit(committed={0: 1, 1: None})
    assert audit.right
    assert [(one.images, one.events, one.pending) for one in audit.partitions] == [(1, 1, 3), (0, 0, 4)]
    assert (audit.masks, audit.total("pending")) == (1, 7)


def test_copies_are_allowed_where_the_broker_promises_no_more(stream: Stream) -> None:
    stream.inspect(stream.images[2])
    stream.refuse(stream.images[7])
    audit = stream.audit(exactly_once=False)
    assert audit.right
    assert (audit.troubles["doubled_same_id"], audit.troubles["masks_doubled"]) == (2, 1)
    assert (audit.total("doubled"), audit.total("events")) == (2, 8)
    assert stream.audit(exactly_once=True).off == ["doubled_same_id", "masks_doubled"]
    stream.event(stream.images[1], V2)
    assert stream.audit(exactly_once=False).off == ["doubled_other", "masks_missing"]


def test_an_image_sent_twice_is_two_images_with_two_masks(stream: Stream) -> None:
    for _ in range(2):
        stream.inspect(stream.image(0, name="twice"))
    assert troubles(stream) == {}
    del stream.masks[-1]
    assert troubles(stream) == {"masks_missing": 1}
    del stream.masks[-1]
    assert troubles(stream) == {"masks_missing": 2}


def test_an_image_sent_twice_of_which_one_is_pending_has_a_mask_to_spare(stream: Stream) -> None:
    for _ in range(2):
        stream.inspect(stream.image(0, name="twice"))
    assert troubles(stream, committed={0: 7, 1: 6}) == {}


def test_a_replayed_letter_is_a_new_image_that_needs_its_own_outcome(stream: Stream) -> None:
    stream.mark_replayed()
    again = stream.image(1, name="img-1-5")
    assert troubles(stream) == {"lost": 1}
    stream.inspect(again)
    audit = stream.audit()
    assert audit.right
    assert audit.deadletters == {"UnreadableImage": 1}


def test_an_image_refused_because_its_object_is_gone_has_its_outcome(stream: Stream) -> None:
    stream.refuse(stream.image(0, claim=True), "ClaimMissing")
    stream.store.objects.clear()
    assert troubles(stream) == {}


def test_any_record_is_an_image_whatever_its_headers(stream: Stream) -> None:
    junk = replace(
        stream.image(0), key=None, value=None, headers=(("ce_id", None), ("x", b"\xff"), ("CE_Source", b"\xff"))
    )  # type: ignore[arg-type]
    stream.images[-1] = junk
    assert stream.audit().examples["lost"] == [Example(IMAGES, 0, 6, "", "\ufffd")]
    stream.refuse(replace(junk, headers=()))
    assert troubles(stream) == {}


def test_only_the_first_examples_are_kept(stream: Stream) -> None:
    stream.events.clear()
    stream.masks.clear()
    audit = stream.audit()
    assert audit.troubles["lost"] == 7
    assert [(one.partition, one.offset) for one in audit.examples["lost"]] == [(0, 0), (0, 2), (0, 3), (0, 5), (1, 0)]


def test_masks_that_came_with_later_events_are_no_orphans(stream: Stream) -> None:
    image = stream.image(0)
    stream.inspect(image)
    stream.late.append(stream.events.pop())
    assert troubles(stream, committed={0: 6, 1: 6}) == {}
    stream.event(stream.images[2])
    stream.events.append(replace(stream.events[0], offset=99, value=b"{}"))
    stream.late += [stream.events.pop(), stream.events.pop()]  # they came after what was counted
    assert troubles(stream, committed={0: 6, 1: 6}) == {}
    stream.late.clear()
    assert troubles(stream, committed={0: 6, 1: 6}) == {"masks_orphaned": 1}


def test_the_longest_gap_is_between_two_events_of_one_camera_in_a_row() -> None:
    """Times are the offsets, in seconds."""
    stream = Stream()
    for partition, gap, camera in (
        (0, 0, "a"),
        (0, 0, "b"),
        (0, 0, "b"),
        (0, 7, "a"),
        (1, 0, "c"),
        (0, 0, "b"),
        (1, 2, "c"),
    ):
        stream.inspect(stream.image(partition, gap=gap, camera=camera))
    stream.inspect(stream.image(1, gap=50, camera="a"))  # in another partition: not in a row
    stream.inspect(stream.image(1, gap=20, camera="d"))
    later = NOON + timedelta(seconds=100)
    stream.event(stream.images[0], times=Times(captured=NOON, received=NOON, scored=NOON, published=later))  # a copy
    assert stream.audit().longest_gap_s == {"a": 10.0, "b": 9.0, "c": 3.0, "d": 0.0}


def test_a_thousand_images_with_troubles_at_random_are_counted_right() -> None:
    dice, stream, expected = random.Random(0), Stream(), Counter[str]()
    for _ in range(1000):
        image = stream.image(dice.randrange(2), gap=dice.randrange(3))
        fate = dice.choice(["right", "right", "refused", "lost", "copied", "other", "both", "no mask", "two masks"])
        expected[fate] += 1
        if fate in ("refused", "both"):
            stream.refuse(image)
        if fate not in ("refused", "lost"):
            stream.event(image)
        if fate not in ("refused", "lost", "no mask"):
            stream.mask(image)
        if fate == "copied":
            stream.event(image)
        if fate == "other":
            stream.inspect(image, V2)
        if fate == "two masks":
            stream.mask(image)
    for log in (stream.events, stream.masks, stream.letters):
        dice.shuffle(log)
    audit = stream.audit()
    assert {kind: number for kind, number in audit.troubles.items() if number} == {
        "lost": expected["lost"],
        "doubled_same_id": expected["copied"],
        "doubled_other": expected["other"] + expected["both"],
        "masks_missing": expected["no mask"],
        "masks_doubled": expected["two masks"],
    }
    assert audit.total("images") == 1000
    assert audit.total("lost") == expected["lost"]
    assert audit.deadletters == {"UnreadableImage": expected["refused"] + expected["both"]}
