from __future__ import annotations

import numpy as np
import pytest

from model import Frame, spoil


def test_a_spoiled_frame_differs_visibly_in_a_small_place(good_frames: list[Frame]) -> None:
    rng = np.random.default_rng(0)
    for index in range(60):
        frame = good_frames[index % 24]
        before = frame.pixels.copy()
        spoiled = spoil(frame, rng)
        assert np.array_equal(frame.pixels, before)
        assert (spoiled.width, spoiled.height) == (frame.width, frame.height)
        assert spoiled.pixels.dtype == np.uint8
        change = np.abs(spoiled.pixels.astype(int) - before).mean(axis=-1)
        assert change.max() >= 24
        assert 0 < (change > 0).mean() < 0.2


def test_spoiling_is_decided_by_the_generator(good_frames: list[Frame]) -> None:
    one, same, other = (spoil(good_frames[0], np.random.default_rng(seed)).pixels for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_uniform_frames_can_be_spoiled_too() -> None:
    for level in (0, 128, 255):
        blank = Frame(np.full((64, 64, 3), level, dtype=np.uint8), 64, 64)
        for seed in range(10):
            assert not np.array_equal(spoil(blank, np.random.default_rng(seed)).pixels, blank.pixels)


@pytest.mark.parametrize("side", [None, 32])
def test_no_defect_lies_where_the_image_is_ignored(good_frames: list[Frame], side: int | None) -> None:
    rng = np.random.default_rng(0)
    hidden = np.ones(good_frames[0].pixels.shape[:2], bool)
    hidden[20:44, 8:40] = False
    for frame in good_frames * 2:
        changed = (spoil(frame, rng, side, hidden).pixels != frame.pixels).any(axis=2)
        assert not changed[hidden].any()
        assert changed.any()
