"""Which image each outcome is of, and which event each mask is of: whole columns at a time."""

from dataclasses import dataclass

import numpy as np

from jobs.audit.books import NOWHERE, OFFSET_BITS, Books
from jobs.audit.columns import numbers

OFFSETS = (1 << OFFSET_BITS) - 1


@dataclass(frozen=True)
class Images:
    """The counted images, by place. ``rows`` are theirs in the books."""

    places: np.ndarray
    rows: np.ndarray
    first: np.ndarray  # by partition
    end: np.ndarray

    @classmethod
    def of(cls, books: Books) -> "Images":
        size = max(books.committed, default=-1) + 1
        first, end = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for partition, committed in books.committed.items():
            end[partition] = min(committed or 0, books.closed.get(partition, committed or 0))
            begin = max(books.first.get(partition, 0), books.log_starts.get((books.topic, partition), 0))
            # With no image in the window nothing is counted: whatever events say lies outside it.
            first[partition] = min(begin, end[partition]) if partition in books.first else end[partition]
        places = numbers(books.inputs.places)
        rows = np.argsort(places, kind="stable")
        places = places[rows]
        inside = (places & OFFSETS) >= first[places >> OFFSET_BITS]  # retention may have taken some meanwhile
        return cls(places[inside], rows[inside], first, end)

    def __len__(self) -> int:
        return len(self.places)

    def hold(self, sources: np.ndarray) -> np.ndarray:
        """Whether each place lies between the first and the end of its partition."""
        partitions, offsets = sources >> OFFSET_BITS, sources & OFFSETS
        inside: np.ndarray = (
            (sources != NOWHERE) & (offsets >= self.first[partitions]) & (offsets < self.end[partitions])
        )
        return inside

    def find(self, sources: np.ndarray) -> np.ndarray:
        """The number of the image at each place; -1 where there is none."""
        found, there = _positions(self.places, sources)
        return np.where(there, found, -1)


@dataclass(frozen=True)
class Matched:
    """Each outcome with its image: arrays of a row for each event and dead letter."""

    image: np.ndarray  # number of the image
    counted: np.ndarray  # whether it is the outcome of a counted image
    stray: np.ndarray  # whether it ought to be, and there is no such image
    earlier: np.ndarray  # whether its image lay at that place of a topic that was made anew since
    letter: np.ndarray
    event_code: np.ndarray  # equal for equal event ids
    event_digests: np.ndarray  # by code, in order

    @classmethod
    def of(cls, books: Books, images: Images) -> "Matched":
        outcomes = books.outcomes
        sources = numbers(outcomes.sources)
        late = numbers(outcomes.late) > 0
        image, inside = images.find(sources), images.hold(sources)
        other, mixed = _other_images(books, images, image)
        image = np.where(other, -1, image)
        earlier = ~late & other & ~mixed
        digests, codes = np.unique(outcomes.identities.values(), return_inverse=True)
        return cls(
            image=image,
            counted=~late & (image >= 0),
            stray=~late & ~earlier & ((sources == NOWHERE) | (inside & (image < 0))),
            earlier=earlier,
            letter=numbers(outcomes.letters) > 0,
            event_code=codes.reshape(-1),
            event_digests=digests,
        )

    def copies(self, images: int) -> tuple[np.ndarray, np.ndarray]:
        """(images,) outcomes of each image, and how many different ones they are."""
        image, code = self.image[self.counted], self.event_code[self.counted]
        size = max(len(self.event_digests), 1)
        different = np.unique(image * size + code) // size
        return np.bincount(image, minlength=images), np.bincount(different, minlength=images)


@dataclass(frozen=True)
class Masks:
    """Each picture with its event; ``missing``, ``surplus`` and ``owner`` have a number for each event id.

    One mask is due for each counted image with an event: copies of an event share it, and the same image sent twice
    has one event id and two masks.
    """

    missing: np.ndarray
    surplus: np.ndarray
    owner: np.ndarray  # the first counted image of the id; -1 where there is none
    counted: np.ndarray  # by picture: whether its event is that of a counted image
    wrong: np.ndarray
    orphaned: np.ndarray

    @classmethod
    def of(cls, books: Books, images: Images, matched: Matched) -> "Masks":
        outcomes, pictures = books.outcomes, books.pictures
        event, counted = ~matched.letter, matched.counted & ~matched.letter
        ids = max(len(matched.event_digests), 1)
        codes, owners = matched.event_code[counted], matched.image[counted]
        size = max(len(images), 1)
        due = np.bincount(np.unique(codes * size + owners) // size, minlength=ids)
        # Events that don't count, such as one that came meanwhile, may have masks of the same id.
        spare = np.bincount(matched.event_code[event & ~counted], minlength=ids)
        owner = np.full(ids, -1)
        owner[codes[::-1]] = owners[::-1]

        named = pictures.identities.values()
        code, known = _positions(matched.event_digests, named)
        of_counted = known & (due > 0)[code]
        is_mask, times = numbers(pictures.masks) > 0, numbers(pictures.times_ms)
        low, high = books.window.bounds_ms
        seen = np.bincount(code[known & is_mask], minlength=ids)
        promised = _pairs(outcomes.identities.values()[event], outcomes.masks.values()[event])
        right = np.isin(_pairs(named, pictures.contents.values()), promised)
        return cls(
            missing=np.maximum(due - seen, 0),
            surplus=np.where(due > 0, np.maximum(seen - due - spare, 0), 0),
            owner=owner,
            counted=of_counted,
            wrong=of_counted & is_mask & ~right,
            orphaned=~known & (times >= low) & (times < high),
        )


def _other_images(books: Books, images: Images, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outcomes,) whether the image at an outcome's place has another id than the outcome says; and whether the log has
    that id elsewhere, and had it before the outcome.

    A topic that is made anew begins at offset 0 again, and the events of the one before name its places. What names an
    image that is there, at a place where it is not, is a mix-up.
    """
    ids, named = books.inputs.ids.values()[images.rows], books.outcomes.ids.values()
    other = image >= 0
    other[other] = ids[image[other]] != named[other]
    ordered, first = np.unique(ids, return_index=True)
    at, there = _positions(ordered, named)
    arrived = numbers(books.inputs.times_ms)[images.rows][first][at] if len(ordered) else np.zeros(len(named), np.int64)
    return other, there & (numbers(books.outcomes.times_ms) >= arrived)


def _positions(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of ``wanted`` is in ``ordered``, and whether it is there at all; some place where it is not."""
    if not len(ordered):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    found = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return found, ordered[found] == wanted


def _pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(rows,) of 32 bytes: both digests of a row, end to end."""
    both = np.concatenate([part.view(np.uint8).reshape(len(part), part.itemsize) for part in (left, right)], axis=1)
    return both.reshape(-1).view(f"S{2 * left.dtype.itemsize}")
