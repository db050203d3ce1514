"""Made-up defects to learn from: every kind shows, none covers everything, and a seed gives the same ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model import Fit, FitOptions, Frame
from model.fitting.corruption import _FILLINGS, _SHAPES, corrupted
from model.fitting.steps import copy_indexes


def test_a_part_of_the_image_changes_and_the_rest_stays(good_frames: list[Frame]) -> None:
    shares = []
    for seed in range(60):
        frame = good_frames[seed % len(good_frames)]
        spoiled = corrupted(frame, good_frames, np.random.default_rng(seed))
        assert spoiled.pixels.shape == frame.pixels.shape
        assert spoiled.pixels.dtype == np.uint8
        assert (spoiled.width, spoiled.height) == (frame.width, frame.height)
        shares.append(float((spoiled.pixels != frame.pixels).any(axis=-1).mean()))
    assert sum(share == 0 for share in shares) <= 3  # a lone line may leave the image at once
    assert max(shares) < 0.7
    assert 0.02 < np.median(shares) < 0.3


def test_the_given_frame_is_not_touched(good_frames: list[Frame]) -> None:
    before = good_frames[0].pixels.copy()
    corrupted(good_frames[0], good_frames, np.random.default_rng(0))
    assert np.array_equal(good_frames[0].pixels, before)


def test_a_seed_gives_the_same_defects(good_frames: list[Frame]) -> None:
    one, same, other = (corrupted(good_frames[0], good_frames, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("shape", _SHAPES)
def test_every_shape_is_there_and_small(shape: Callable[..., np.ndarray], side: int) -> None:
    shares = [float(shape(np.random.default_rng(seed), side).mean()) for seed in range(30)]
    assert all(0 <= share < 0.5 for share in shares)
    assert sum(share > 0 for share in shares) >= 28  # a line may leave the image at once


@pytest.mark.parametrize("filling", _FILLINGS)
def test_every_filling_covers_the_image(filling: Callable[..., np.ndarray], good_frames: list[Frame]) -> None:
    pixels = good_frames[0].pixels.astype(np.float32)
    filled = filling(pixels, good_frames, np.random.default_rng(0))
    assert filled.shape == pixels.shape
    assert np.isfinite(filled).all()


def test_every_copy_is_shown() -> None:
    options = FitOptions(corruptions=3, batch=16)
    shown = [copy for step in range(20) for copy in copy_indexes(options, step)]
    assert set(shown) == {0, 1, 2}
    assert copy_indexes(options, 5) == copy_indexes(options, 5)


def test_a_fit_without_spoiled_copies_learns_from_good_images_alone(
    good_frames: list[Frame], small_options: Callable[..., FitOptions]
) -> None:
    with_them, without = (
        Fit("disc", good_frames[:16], good_frames[16:], small_options(corruptions=count)).run() for count in (1, 0)
    )
    assert with_them.weights != without.weights
