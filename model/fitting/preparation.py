"""From a product's good images to what a fit learns from and is calibrated on, in the order of scoring: light, area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.fitting.options import FitOptions
from model.images.exposure import Exposure, learned
from model.images.frames import Frame
from model.images.ignored import Cover
from model.images.tiles import training_tiles
from model.images.tolerance import Tolerance, jittered


@dataclass(frozen=True, eq=False)
class Prepared:
    """As the network sees them. train: frames, or tiles of them. borne: a tolerated copy of each, or none.

    held_out: one tolerated copy of each, no more, so that they stay independent draws of what is to come; unchanged:
    the same as they are.
    """

    train: list[Frame]
    borne: list[Frame]
    held_out: list[Frame]
    unchanged: list[Frame]
    exposure: Exposure | None


def prepared(train: Sequence[Frame], held_out: Sequence[Frame], options: FitOptions, cover: Cover | None) -> Prepared:
    """Raises FitError where the light can't be learned."""
    # Painted before copies are made, or what lies in the area would be moved out of it.
    train, held_out = ([as_scored(frame, cover) for frame in frames] for frames in (train, held_out))
    hidden = cover.hidden if cover else None
    exposure = learned(options.exposure, train, hidden) if options.exposure else None

    def in_light(frames: Sequence[Frame]) -> list[Frame]:
        return [as_scored(exposure.scaled(frame, hidden), cover) for frame in frames] if exposure else list(frames)

    tolerate = options.tolerate
    calibrated_on = in_light(_copies(held_out, tolerate, options.seed, 1, cover) or held_out)
    if not options.tiles:
        copies = _copies(train, tolerate, options.seed, 0, cover)
        return Prepared(in_light(train), in_light(copies), calibrated_on, in_light(held_out), exposure)
    if exposure:  # a tile's light is its image's, which is the same in all images from here on
        tolerate = tolerate.model_copy(update={"light": 0.0})
    tiles = training_tiles(in_light(train), options.size, options.seed, cover)
    return Prepared(tiles, _copies(tiles, tolerate, options.seed, 0, None), calibrated_on, in_light(held_out), exposure)


def as_scored(frame: Frame, cover: Cover | None) -> Frame:
    """What is ignored is painted over."""
    return cover.painted(frame) if cover else frame


def _copies(frames: Sequence[Frame], tolerate: Tolerance, seed: int, purpose: int, cover: Cover | None) -> list[Frame]:
    """One of each, as it is tolerated; none where nothing is."""
    if tolerate.none:
        return []
    draws = (np.random.default_rng((seed, index, purpose, 0)) for index in range(len(frames)))
    return [as_scored(jittered(frame, tolerate, rng), cover) for frame, rng in zip(frames, draws, strict=True)]
