"""Light brought to that of good images: what it takes out, what it leaves, and what it must not hide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Engine, Fit, FitError, FitOptions, Frame
from model.images.exposure import MOST_GAIN, learned
from model.images.ignored import drawn_area
from model.images.tolerance import NOTHING, lit

SIDE = 64


def part(seed: int = 0) -> Frame:
    """A bright part on a darker ground, both of them textured, none of it near white."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(60, 6, (SIDE, SIDE, 3))
    pixels[16:48, 16:48] = rng.normal((140, 120, 100), 6, (32, 32, 3))
    return Frame(np.clip(pixels, 0, 255).astype(np.uint8), SIDE, SIDE)


GOOD = [part(seed) for seed in range(8)]


@pytest.mark.parametrize("place", ["image", "border", (((0.0, 0.0), (64.0, 0.0), (64.0, 12.0), (0.0, 12.0)),)])
@given(gain=st.floats(0.5, 1.5))
def test_another_light_is_taken_out(place: object, gain: float) -> None:
    exposure = learned(place, GOOD)  # type: ignore[arg-type]
    frame = part(99)
    dimmed = Frame(lit(frame.pixels, gain), SIDE, SIDE)
    off = exposure.scaled(dimmed).pixels.astype(float) - exposure.scaled(frame).pixels
    # Gray levels are whole: of the dimmed image, of the means taken from it, of both that are compared.
    assert np.abs(off).max() <= 1 / gain + 1.5
    assert abs(off.mean()) < 1


def test_white_balance_is_taken_out() -> None:
    exposure = learned("border", GOOD)
    frame = part(99)
    tinted = Frame((frame.pixels * np.array([0.8, 1.0, 1.2])).astype(np.uint8), SIDE, SIDE)
    assert np.abs(exposure.scaled(tinted).pixels.mean((0, 1)) - frame.pixels.mean((0, 1))).max() < 1.5


def test_a_discoloured_part_stays_so_where_the_border_is_looked_at() -> None:
    frame = part(99)
    stained = frame.pixels.copy()
    stained[16:48, 16:48] = stained[16:48, 16:48] * np.array([1.0, 0.7, 1.0])
    by_border, by_image = (learned(place, GOOD).scaled(Frame(stained, SIDE, SIDE)) for place in ("border", "image"))
    inside = np.s_[16:48, 16:48, 1]
    wanted = stained[inside].mean()
    assert abs(by_border.pixels[inside].mean() - wanted) < 1.5
    assert by_image.pixels[inside].mean() > wanted + 5  # the price that the whole image has


def test_what_is_ignored_tells_nothing_of_the_light() -> None:
    area = drawn_area([((0.0, 0.0), (64.0, 0.0), (64.0, 8.0), (0.0, 8.0))], SIDE, SIDE)
    hidden = area.cover(SIDE, False).hidden
    exposure = learned("border", GOOD, hidden)
    lamp = part(99).pixels.copy()
    lamp[:8] = 255
    with_lamp, without = (exposure.scaled(Frame(p, SIDE, SIDE), hidden) for p in (lamp, part(99).pixels))
    assert np.array_equal(with_lamp.pixels[10:], without.pixels[10:])


def test_black_and_white_images_stay_as_strange_as_they_are() -> None:
    exposure = learned("image", GOOD)
    black, white = (exposure.scaled(Frame(np.full((SIDE, SIDE, 3), v, np.uint8), SIDE, SIDE)) for v in (0, 255))
    assert black.pixels.max() == 0
    assert white.pixels.min() >= 255 / MOST_GAIN - 1


def test_polygons_lie_at_the_same_place_of_an_image_of_another_size() -> None:
    corner = (((0.0, 0.0), (32.0, 0.0), (32.0, 8.0), (0.0, 8.0)),)
    exposure = learned(corner, GOOD)
    twice = part(99).pixels.repeat(2, 0).repeat(2, 1)
    small, large = exposure.scaled(part(99)), exposure.scaled(Frame(twice, 2 * SIDE, 2 * SIDE))
    assert np.array_equal(large.pixels[::2, ::2], small.pixels)


def test_a_place_without_light_is_refused() -> None:
    dark = [Frame(np.zeros((SIDE, SIDE, 3), np.uint8), SIDE, SIDE)] * 4
    with pytest.raises(FitError, match="black where their light is to be looked at"):
        learned("border", dark)
    with pytest.raises(FitError, match="no pixel of an image of 64 x 64"):
        learned((((70.0, 70.0), (80.0, 70.0), (80.0, 80.0)),), GOOD)
    other = Frame(np.full((SIDE, SIDE, 3), 90, np.uint8), 2 * SIDE, SIDE)
    with pytest.raises(FitError, match="images of one size"):
        learned((((0.0, 0.0), (9.0, 0.0), (9.0, 9.0)),), [*GOOD, other])


@pytest.mark.parametrize("given_as", ["off", False, None])
def test_off_is_off(given_as: object) -> None:
    assert FitOptions.model_validate({"exposure": given_as}).exposure is None


def test_what_else_could_be_meant_is_told() -> None:
    with pytest.raises(ValueError, match="off, image or border, or a list of polygons"):
        FitOptions.model_validate({"exposure": 3})


@pytest.mark.parametrize("tiles", [False, True])
def test_a_version_carries_it_and_judges_a_dimmed_image_as_it_was(tiles: bool, good_frames: list[Frame]) -> None:
    options = FitOptions(size=64, steps=2, batch=4, corruptions=1, tiles=tiles, tolerate=NOTHING)
    if tiles:
        wide = [np.concatenate([frame.pixels, frame.pixels[:, ::-1]], axis=1) for frame in good_frames]
        good_frames = [Frame(pixels, 128, 64) for pixels in wide]
    scores = {}
    for exposure in (None, "image"):
        chosen = FitOptions.model_validate({**options.model_dump(), "exposure": exposure})
        bundle = Fit("disc", good_frames[:16], good_frames[16:], chosen).run()
        assert (bundle.manifest.preprocessing.exposure is None) == (exposure is None)
        engine = Engine(lambda _, bundle=bundle: bundle, device="cpu", backend="torch")
        dim = [Frame(lit(frame.pixels, 0.75), frame.width, frame.height) for frame in good_frames[:4]]
        seen, dimmed = (engine.score(frames, ["disc"] * 4) for frames in (good_frames[:4], dim))
        scores[exposure] = max(abs(b.score / a.score - 1) for a, b in zip(seen, dimmed, strict=True))
    assert scores["image"] < 0.5 * scores[None]  # type: ignore[index]
