"""Copies of good images as they may look, too: how far they are changed, and that they are not changed further."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from model.images.frames import Frame
from model.images.tolerance import NOTHING, Tolerance, blurred, compressed, jittered, lit, moved, noisy


def random_pixels(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_a_share_is_a_number_or_a_percentage() -> None:
    assert Tolerance.model_validate({"light": "20%"}).light == Tolerance(light=0.2).light == 0.2


@pytest.mark.parametrize(
    "wrong", [{"light": "60%"}, {"light": -0.1}, {"jpeg": 0}, {"noise": float("nan")}, {"dust": 1}, {"light": "much"}]
)
def test_a_range_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Tolerance.model_validate(wrong)


def test_who_tolerates_nothing_has_the_image_itself() -> None:
    frame = Frame(random_pixels(64), 300, 200)
    copy = jittered(frame, NOTHING, np.random.default_rng(0))
    assert NOTHING.none
    assert not Tolerance().none
    assert np.array_equal(copy.pixels, frame.pixels)
    assert (copy.width, copy.height) == (300, 200)


def test_a_copy_follows_from_its_draws_alone() -> None:
    frame = Frame(random_pixels(64), 64, 64)
    wide = Tolerance(light=0.3, shift_px=6, turn_deg=5, blur_px=1, noise=3, jpeg=60)
    first, again, other = (jittered(frame, wide, np.random.default_rng(seed)).pixels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("shape", [(48, 48, 3), (40, 64, 3)])
def test_moving_by_whole_pixels_and_turning_by_right_angles_is_exact(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    right_and_down = moved(pixels, 5, 3, 0)
    assert np.array_equal(right_and_down[3:, 5:], pixels[:-3, :-5])
    assert np.array_equal(right_and_down[0, 5:], pixels[2, :-5]), "beyond the edge is the mirrored edge"
    if shape[0] == shape[1]:
        assert np.array_equal(moved(pixels, 0, 0, 90), np.rot90(pixels))
    assert np.array_equal(moved(pixels, 0, 0, 0), pixels)


def test_light_multiplies_and_white_stays_white() -> None:
    pixels = np.array([[[0, 100, 250]]], dtype=np.uint8)
    assert lit(pixels, 1.2).tolist() == [[[0, 120, 255]]]
    assert lit(pixels, 0.7).tolist() == [[[0, 70, 175]]]


def test_noise_has_the_stated_deviation_and_blur_takes_it_away() -> None:
    gray = np.full((200, 200, 3), 128, dtype=np.uint8)
    grainy = noisy(gray, 6.0, np.random.default_rng(0))
    assert grainy.astype(float).std() == pytest.approx(6.0, rel=0.03)
    assert grainy.astype(float).mean() == pytest.approx(128, abs=0.1)
    assert blurred(grainy, 1.0).astype(float).std() < 2.5


def test_a_lower_quality_changes_more() -> None:
    pixels = random_pixels(64)
    change = [np.abs(compressed(pixels, quality).astype(int) - pixels).mean() for quality in (99, 60, 10)]
    assert change == sorted(change)


@pytest.mark.parametrize("light", [0.05, 0.3])
def test_copies_lie_at_both_ends_of_the_range(light: float) -> None:
    gray = Frame(np.full((16, 16, 3), 100, dtype=np.uint8), 16, 16)
    only_light = NOTHING.model_copy(update={"light": light})
    gains = [jittered(gray, only_light, np.random.default_rng(n)).pixels.mean() / 100 for n in range(100)]
    assert sorted(set(gains)) == pytest.approx([1 - light, 1 + light], abs=0.006)
    assert 20 < sum(gain < 1 for gain in gains) < 80


def test_a_copy_is_moved_to_a_corner() -> None:
    frame = Frame(random_pixels(64), 64, 64)
    copies = [jittered(frame, NOTHING.model_copy(update={"shift_px": 3}), np.random.default_rng(n)) for n in range(40)]
    corners = [moved(frame.pixels, right, down, 0) for right in (-3, 3) for down in (-3, 3)]
    at = [[np.array_equal(copy.pixels, corner) for corner in corners] for copy in copies]
    assert all(sum(of) == 1 for of in at)
    assert np.any(at, axis=0).all()
