"""Whether there are images enough for a fit: told from a snapshot alone, before anything is started."""

from jobs.fitting.datasets import Item, Snapshot
from model import split
from model.fitting.preparation import LEAST_TRAIN
from model.verdict.calibration import LEAST_HELD_OUT

LEAST = LEAST_TRAIN + LEAST_HELD_OUT + 1
"""At most half of the images are held out, so this is where the lesser half suffices."""


def split_items(snapshot: Snapshot) -> tuple[list[Item], list[Item]]:
    """Good images to fit on, and those held out. By their pixels, so that copies share a side."""
    train_at, held_at = split([item.picture for item in snapshot.good])
    return [snapshot.good[index] for index in train_at], [snapshot.good[index] for index in held_at]


def too_few(snapshot: Snapshot) -> str | None:
    """Why a fit on the snapshot would fail for its counts, in words; None where it would not."""
    train, held_out = split_items(snapshot)
    if len(train) >= LEAST_TRAIN and len(held_out) >= LEAST_HELD_OUT:
        return None
    count = len(snapshot.good)
    copies = sum(len(item.copies) for item in snapshot.good)
    of = f" ({copies + count} files, of which {copies} are copies)" if copies else ""
    return f"it has {count} different good image{'s' * (count != 1)}{of}, and at least {LEAST} are needed: ingest more"
