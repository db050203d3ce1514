"""From the books to the figures: what is lost, doubled or wrong, with a few examples of each."""

from collections.abc import Callable, Sequence

import numpy as np

from jobs.audit.books import OFFSET_BITS, Books, Deleted, Inputs, Outcomes, Pictures
from jobs.audit.columns import Names, numbers
from jobs.audit.deleted import deleted_unread
from jobs.audit.matching import OFFSETS, Images, Masks, Matched
from jobs.audit.objects import missing_objects
from jobs.audit.report import COPIES, TROUBLES, Audit, Example, PartitionCount
from jobs.audit.window import iso
from pipeline.settings import Settings, Topics
from pipeline.storage.store import ObjectStore

EXAMPLES = 5


def count(
    books: Books,
    settings: Settings,
    store: ObjectStore,
    *,
    exactly_once: bool,
    on_object: Callable[[int, int], None] = lambda _done, _of: None,
) -> Audit:
    """Judge what the books hold. ``store`` is asked for the objects of claim checks.

    Raises:
        StoreUnavailable: there are claim checks, and S3 does not answer.
    """
    images = Images.of(books)
    matched = Matched.of(books, images)
    masks = Masks.of(books, images, matched)
    copies, different = matched.copies(len(images))
    events = matched.counted & ~matched.letter
    findings = _Findings(books, settings.topics, images)
    deleted = deleted_unread(books)
    findings.of_images("lost", np.flatnonzero(copies == 0))
    findings.of_deleted(deleted)
    findings.of_images("doubled_same_id", np.flatnonzero((copies > 1) & (different == 1)))
    findings.of_images("doubled_other", np.flatnonzero(different > 1))
    findings.of_outcomes("events_unexplained", matched.stray, matched.letter)
    findings.of_images("masks_missing", np.sort(np.repeat(masks.owner, masks.missing)))
    findings.of_images("masks_doubled", np.sort(np.repeat(masks.owner, masks.surplus)))
    findings.of_pictures("masks_wrong", np.flatnonzero(masks.wrong))
    findings.of_pictures("masks_orphaned", np.flatnonzero(masks.orphaned))
    inspected = np.bincount(matched.image[events], minlength=len(images)) > 0
    _objects(findings, inspected, masks, store, on_object)

    labels, is_mask = numbers(books.outcomes.labels), numbers(books.pictures.masks) > 0
    window = books.window
    return Audit(
        topic=books.topic,
        group=settings.kafka.group,
        since=None if window.since_ms is None else iso(window.since_ms),
        until=None if window.until_ms is None else iso(window.until_ms),
        exactly_once=exactly_once,
        partitions=_partitions(books, images, matched, copies, deleted),
        verdicts=_tally(labels[events], books.labels),
        deadletters=_tally(labels[matched.counted & matched.letter], books.labels),
        masks=int((masks.counted & is_mask).sum()),
        heat_maps=int((masks.counted & ~is_mask).sum()),
        troubles={kind: findings.counts.get(kind, 0) for kind in TROUBLES},
        examples=findings.examples,
        longest_gap_s=_longest_gaps(books, images, matched),
        notes=[*_notes(books, settings, exactly_once), *_notes_of_topic(books, matched, deleted)],
    )


class _Findings:
    """Counts each kind of trouble, and describes the first few records that are in it."""

    def __init__(self, books: Books, topics: Topics, images: Images) -> None:
        self.books, self.images, self._topics = books, images, topics
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[Example]] = {}

    def of_images(self, kind: str, images: np.ndarray) -> None:
        self._add(kind, self._topics.images, self.books.inputs, self.images.rows[images])

    def of_deleted(self, deleted: Sequence[Deleted]) -> None:
        messages = sum(one.messages for one in deleted)
        self.counts["lost"] += messages
        self.counts["deleted_unread"] = messages
        if deleted:
            places = [Example(self._topics.images, one.partition, one.first, "", "") for one in deleted[:EXAMPLES]]
            self.examples["deleted_unread"] = places

    def of_outcomes(self, kind: str, flags: np.ndarray, letter: np.ndarray) -> None:
        self._add(kind, self._topics.events, self.books.outcomes, np.flatnonzero(flags & ~letter))
        self._add(kind, self._topics.deadletters, self.books.outcomes, np.flatnonzero(flags & letter))

    def of_pictures(self, kind: str, rows: np.ndarray) -> None:
        self._add(kind, self._topics.masks, self.books.pictures, rows)

    def _add(self, kind: str, topic: str, table: Inputs | Outcomes | Pictures, rows: np.ndarray) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + len(rows)
        examples = self.examples.setdefault(kind, []) if len(rows) else []
        for row in rows[: EXAMPLES - len(examples)]:
            at, camera = table.places[row], self.books.cameras.texts[table.cameras[row]]
            examples.append(Example(topic, at >> OFFSET_BITS, at & OFFSETS, table.image_ids[row], camera))


def _objects(
    findings: _Findings, inspected: np.ndarray, masks: Masks, store: ObjectStore, on_object: Callable[[int, int], None]
) -> None:
    """Of images that have an event, and of pictures whose event counts: older ones may be gone by right."""
    books, images = findings.books, findings.images
    image_of_row = np.full(len(books.inputs.places), -1)
    image_of_row[images.rows] = np.arange(len(images))
    of_images = image_of_row[numbers(books.inputs.claims.rows)]
    of_pictures = numbers(books.pictures.claims.rows)
    asked = np.flatnonzero(np.append(inspected, False)[of_images]), np.flatnonzero(masks.counted[of_pictures])
    keys = [
        claims.keys[int(row)]
        for claims, rows in zip((books.inputs.claims, books.pictures.claims), asked, strict=True)
        for row in rows
    ]
    missing = missing_objects(store, keys, on_object)
    findings.of_images("objects_missing", of_images[asked[0]][missing[: len(asked[0])]])
    findings.of_pictures("objects_missing", of_pictures[asked[1]][missing[len(asked[0]) :]])


def _partitions(
    books: Books, images: Images, matched: Matched, copies: np.ndarray, deleted: Sequence[Deleted]
) -> list[PartitionCount]:
    def each(places: np.ndarray) -> np.ndarray:
        return np.bincount(places >> OFFSET_BITS, minlength=len(images.first))

    outcomes = images.places[matched.image[matched.counted]]
    letter = matched.letter[matched.counted]
    counts = (
        each(images.places),
        each(outcomes[~letter]),
        each(outcomes[letter]),
        each(images.places[copies == 0]),
        each(images.places[copies > 1]),
    )
    lines = []
    for partition in sorted(books.committed):
        found, events, letters, lost, doubled = (int(one[partition]) for one in counts)
        first, end = int(images.first[partition]), int(images.end[partition])
        pending = books.pending[partition]
        lost += sum(one.messages for one in deleted if one.partition == partition)
        lines.append(PartitionCount(partition, first, end, found, events, letters, pending, lost, doubled))
    return lines


def _tally(labels: np.ndarray, names: Names) -> dict[str, int]:
    """How often each label comes, the most frequent first."""
    counts = sorted(
        ((int(count), name) for count, name in zip(np.bincount(labels), names.texts, strict=False)), reverse=True
    )
    return {name: count for count, name in counts if count}


def _longest_gaps(books: Books, images: Images, matched: Matched) -> dict[str, float]:
    """Camera to the longest time between the publications of two of its images that lie one after the other."""
    rows = np.flatnonzero(matched.counted & ~matched.letter)
    image, first_of_image = np.unique(matched.image[rows], return_index=True)
    published = numbers(books.outcomes.published_us)[rows][first_of_image]
    camera = numbers(books.inputs.cameras)[images.rows[image]]
    order = np.argsort(camera, kind="stable")  # images are in the order of their offsets, and stay so
    camera, published, partition = camera[order], published[order], images.places[image][order] >> OFFSET_BITS
    neighbours = (camera[1:] == camera[:-1]) & (partition[1:] == partition[:-1])
    longest = np.zeros(len(books.cameras.texts))
    np.maximum.at(longest, camera[1:][neighbours], np.diff(published)[neighbours] / 1e6)
    seen = sorted(np.unique(camera).tolist(), key=lambda one: -longest[one])
    return {books.cameras.texts[one]: round(float(longest[one]), 3) for one in seen}


def _notes(books: Books, settings: Settings, exactly_once: bool) -> list[str]:
    """What a reader of the figures should know."""
    notes = []
    if not books.inputs.places and not books.pending:
        notes.append("no image came within the window: nothing was counted")
    elif not any(books.committed.values()):
        notes.append(
            f"group {settings.kafka.group!r} has committed nothing, so every image is pending. Is kafka.group right?"
        )
    if not exactly_once:
        notes.append(f"the broker delivers at least once, so {' and '.join(COPIES)} are allowed")
    oldest = min((time for (topic, _), time in books.begins_ms.items() if topic == books.topic), default=None)
    for topic in (settings.topics.events, settings.topics.masks):
        whole_from = max(
            (time for (name, partition), time in books.begins_ms.items()
             if name == topic and books.log_starts.get((name, partition), 0) > 0),
            default=None,
        )  # fmt: skip
        if oldest is not None and whole_from is not None and oldest < whole_from:
            notes.append(
                f"{topic} is whole from {iso(whole_from)} on, the images from {iso(oldest)} on: the broker has deleted "
                f"what lay between, and it counts as missing here. '--since {iso(whole_from)}' leaves it out"
            )
    return notes


def _notes_of_topic(books: Books, matched: Matched, deleted: Sequence[Deleted]) -> list[str]:
    notes = []
    if earlier := int(matched.earlier.sum()):
        notes.append(
            f"{earlier} events and dead letters name other images than those at their offsets: {books.topic} was made "
            "anew, and they are of the one before"
        )
    if messages := sum(one.messages for one in deleted):
        notes.append(
            f"{messages} messages of {books.topic} were deleted before they were read, by retention, by delete-records "
            "or with the topic: they count as lost, and nothing is left of them"
        )
    return notes
