"""Light is scaled by itself only where good images' scores follow their brightness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model import Fit, FitOptions, Frame
from model.images.tolerance import lit
from model.measures.light import follows_brightness

Draw = Callable[..., Frame]
TEACHER = "efficientnet_lite0"


def under_the_sun(frame: Frame, seed: int) -> Frame:
    """Now and then it shines."""
    gain = 0.8 + 0.25 * float(np.random.default_rng((7, seed)).exponential())
    return Frame(lit(frame.pixels, gain), frame.width, frame.height)


def parts(drawn_frame: Draw, seeds: range, *, sun: bool) -> list[Frame]:
    frames = [drawn_frame(seed) for seed in seeds]
    return [under_the_sun(frame, seed) for frame, seed in zip(frames, seeds, strict=True)] if sun else frames


def followed(drawn_frame: Draw, *, sun: bool, tolerated: float) -> float | None:
    train, held_out = (parts(drawn_frame, seeds, sun=sun) for seeds in (range(40), range(40, 70)))
    return follows_brightness(train, held_out, TEACHER, tolerated)


def test_the_sun_is_found_out_and_steady_light_is_let_be(drawn_frame: Draw) -> None:
    correlation = followed(drawn_frame, sun=True, tolerated=0.05)
    assert correlation is not None
    assert correlation > 0.4
    assert followed(drawn_frame, sun=False, tolerated=0.0) is None


def test_light_that_a_fit_bears_as_it_is_is_let_be(drawn_frame: Draw) -> None:
    assert followed(drawn_frame, sun=True, tolerated=0.8) is None


def test_a_fit_says_that_it_scales_light_and_why(drawn_frame: Draw) -> None:
    options = FitOptions(size=64, steps=2, batch=8)
    train, held_out = (parts(drawn_frame, seeds, sun=True) for seeds in (range(40), range(40, 70)))
    manifest = Fit("disc", train, held_out, options).run().manifest
    exposure = manifest.preprocessing.exposure
    assert exposure is not None
    assert exposure.place == "image"
    (told,) = [line for line in manifest.describe() if "good ones' light" in line]
    assert f"(rank correlation {exposure.correlation:+.2f})" in told
    asked = Fit("disc", train, held_out, options.model_copy(update={"exposure": "image"})).run().manifest
    assert asked.preprocessing.exposure == exposure.model_copy(update={"correlation": None})
    off = Fit("disc", train, held_out, options.model_copy(update={"exposure": None})).run().manifest
    assert off.preprocessing.exposure is None
