"""Whether images suffice is told from a snapshot alone."""

import hashlib

import pytest

from jobs.fitting.counts import LEAST, split_items, too_few
from jobs.fitting.datasets import Item, Snapshot
from model.fitting.preparation import LEAST_TRAIN
from model.verdict.calibration import LEAST_HELD_OUT


def snapshot(count: int, copies: int = 0) -> Snapshot:
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(count + copies)]
    good = [Item(sha256=digest, name="a.png", pixels_sha256=digest[::-1]) for digest in digests[:count]]
    if copies:
        good[0] = good[0].model_copy(update={"copies": tuple(digests[count:])})
    return Snapshot(product="bottle", good=tuple(good))


@pytest.mark.parametrize("count", range(0, 60, 3))
def test_just_enough_is_what_a_fit_takes(count: int) -> None:
    train, held_out = split_items(snapshot(count))
    assert (too_few(snapshot(count)) is None) == (len(train) >= LEAST_TRAIN and len(held_out) >= LEAST_HELD_OUT)


def test_the_least_is_the_least() -> None:
    assert too_few(snapshot(LEAST)) is None
    assert f"at least {LEAST} are needed" in (too_few(snapshot(LEAST - 1)) or "")


def test_copies_do_not_count_and_are_named() -> None:
    told = too_few(snapshot(1, copies=19)) or ""
    assert "1 different good image (20 files, of which 19 are copies)" in told
