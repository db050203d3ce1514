"""The probe's defects lie on the part and are faint; what it says of two versions has an interval that is right."""

from __future__ import annotations

import numpy as np
import pytest

from model import Frame
from model.measures.probe import STRENGTHS, Sensitivity, lead, spoiled

SIDE = 64


def part(seed: int = 0, side: int = SIDE) -> Frame:
    """A textured square in the middle of an even, nearly black ground."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(12, 1, (side, side, 3))
    at = np.s_[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4]
    pixels[at] = rng.normal(150, 25, (side // 2, side // 2, 3))
    return Frame(np.clip(pixels, 0, 255).astype(np.uint8), side, side)


def test_each_image_gets_every_kind_at_every_strength_and_stays_itself() -> None:
    frame = part()
    before = frame.pixels.copy()
    copies = spoiled(frame, np.random.default_rng(0), SIDE)
    assert len(copies) == 2 * len(STRENGTHS)
    assert np.array_equal(frame.pixels, before)
    changes = [np.abs(copy.pixels.astype(int) - before).max() for copy in copies]
    assert all(change > 0 for change in changes)
    assert [copy.pixels.dtype for copy in copies] == [np.uint8] * len(copies)


def test_stronger_is_the_same_defect_further() -> None:
    for seed in range(10):
        frame = part(seed)
        weak, strong = spoiled(frame, np.random.default_rng(seed), SIDE)[:2]  # a crack
        off = [copy.pixels.astype(float) - frame.pixels for copy in (weak, strong)]
        unclipped = (strong.pixels > 0) & (strong.pixels < 255)
        assert np.abs(off[1] - 2 * off[0])[unclipped].max() <= 2
        assert 30 < np.abs(off[1]).max() <= 81
        assert (np.abs(off[1]).max(axis=2) > 0).mean() < 0.2


def test_a_dent_adds_no_color() -> None:
    frame = part(3)
    for copy in spoiled(frame, np.random.default_rng(1), SIDE)[2:]:
        assert copy.pixels.min() >= frame.pixels.min()
        assert copy.pixels.max() <= frame.pixels.max()


def test_defects_lie_on_the_part() -> None:
    frame = part(5)
    on_part = frame.pixels.max(axis=2) > 60
    near = np.zeros_like(on_part)
    near[10:54, 10:54] = True
    for seed in range(20):
        for copy in spoiled(frame, np.random.default_rng(seed), SIDE):
            changed = np.abs(copy.pixels.astype(int) - frame.pixels).max(axis=2) > 20
            if changed.any():
                assert changed[near].sum() > 0.5 * changed.sum()


@pytest.mark.parametrize("side", [SIDE, 32])
def test_what_is_ignored_stays_as_it_is(side: int) -> None:
    hidden = np.ones((SIDE, SIDE), bool)
    hidden[20:44, 8:40] = False
    for seed in range(10):
        frame = part(seed)
        copies = spoiled(frame, np.random.default_rng(seed), side, hidden)
        changed = [(copy.pixels != frame.pixels).any(axis=2) for copy in copies]
        assert not any(one[hidden].any() for one in changed)
        assert all(one.any() for one in changed[: len(STRENGTHS)])


def test_in_a_large_image_a_defect_is_as_large_as_in_a_small_one() -> None:
    rng = np.random.default_rng(0)
    wide = Frame(rng.integers(90, 160, (120, 200, 3), dtype=np.uint8), 200, 120)
    for copy in spoiled(wide, np.random.default_rng(3), SIDE):
        rows, columns = np.nonzero((copy.pixels != wide.pixels).any(axis=2))
        assert rows.size
        assert np.ptp(rows) < SIDE
        assert np.ptp(columns) < SIDE


def test_uniform_images_can_be_probed() -> None:
    for level in (0, 128, 255):
        blank = Frame(np.full((SIDE, SIDE, 3), level, np.uint8), SIDE, SIDE)
        assert (spoiled(blank, np.random.default_rng(0), SIDE)[0].pixels != level).any()


def test_sensitivity_is_the_auroc() -> None:
    found = Sensitivity.of([1.0, 2.0, 3.0], [[0.5, 2.5], [2.0, 9.0], [3.5, 1.5]])
    # Copies above good images: 0, 2, 1.5 (one equal), 3, 3, 1 of 3 each.
    assert found.value == pytest.approx((0 + 2 + 1.5 + 3 + 3 + 1) / 18)


def scores(seed: int, see: float, images: int = 40) -> Sensitivity:
    """Of a version that sees so much: an image's own difficulty, shared by all versions, and each copy's chance."""
    own = np.random.default_rng(seed).normal(0, 1, images)
    rng = np.random.default_rng((seed, int(see * 1000)))
    good = own + rng.normal(0, 0.5, images)
    return Sensitivity.of(good, own[:, None] + see + rng.normal(0, 1, (images, 4)))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth = np.mean([scores(seed, 1.2).value - scores(seed, 0.8).value for seed in range(1000, 1600)])
    held = 0
    for seed in range(300):
        found = lead(scores(seed, 1.2), scores(seed, 0.8))
        held += found.low <= truth <= found.high
        assert found.low < found.mean < found.high
    assert 0.91 <= held / 300 <= 0.985


def test_a_version_leads_itself_by_nothing() -> None:
    one = scores(0, 1.0)
    assert lead(one, one) == lead(scores(0, 1.0), one)
    assert (lead(one, one).mean, lead(one, one).low, lead(one, one).high) == (0, 0, 0)


def test_of_two_images_nothing_can_be_told() -> None:
    one, other = (Sensitivity.of([1.0, 2.0], [[3.0], [top]]) for top in (4.0, 0.0))
    assert (lead(one, other).low, lead(one, other).high) == (-1, 1)
