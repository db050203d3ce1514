"""From a product's good images to what a fit learns from and is calibrated on, in the order of scoring: light,
area, place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.errors import FitError
from model.fitting.kept_frames import KeptFrames
from model.fitting.options import FitOptions
from model.images.exposure import Exposure, learned
from model.images.frames import Frame
from model.images.ignored import Cover, IgnoredArea
from model.images.registration import Registration, common_place, straightened
from model.images.tiles import training_tiles
from model.images.tolerance import Tolerance, jittered
from model.measures.light import follows_brightness
from model.measures.placing import gain
from model.team import ALONE, Team
from model.verdict.calibration import LEAST_HELD_OUT

LEAST_TRAIN = 4


@dataclass(frozen=True, eq=False)
class Prepared:
    """As the network sees them. train: frames, or tiles of them. borne: a tolerated copy of each, or none.

    held_out: one tolerated copy of each, no more, so that they stay independent draws of what is to come; unchanged:
    the same as they are.
    """

    train: Sequence[Frame]
    borne: Sequence[Frame]
    held_out: Sequence[Frame]
    unchanged: Sequence[Frame]
    exposure: Exposure | None
    registration: Registration | None

    def in_place(self) -> Prepared:
        """The same with every part brought to its place."""
        registration = self.registration
        assert registration is not None

        def moved(frames: Sequence[Frame]) -> Sequence[Frame]:
            return KeptFrames(straightened(frame, registration.pose(frame)) for frame in frames)

        return Prepared(
            moved(self.train),
            moved(self.borne),
            moved(self.held_out),
            moved(self.unchanged),
            self.exposure,
            registration,
        )


def prepared(
    train: Sequence[Frame],
    held_out: Sequence[Frame],
    options: FitOptions,
    cover: Cover | None,
    device: torch.device | str = "cpu",
    team: Team = ALONE,
) -> Prepared:
    """device: for what has to look at images, see gain. Of a team, light and place are learned from the first one's.

    Raises FitError where the light can't be learned.
    """
    # Painted before copies are made, or what lies in the area would be moved out of it.
    if cover:
        train, held_out = (KeptFrames(map(cover.painted, frames)) for frames in (train, held_out))
    hidden = cover.hidden if cover else None
    exposure = team.first(lambda: _exposure(train, held_out, options, hidden, device))

    def in_light(frames: Sequence[Frame]) -> Sequence[Frame]:
        if exposure is None:
            return frames
        return KeptFrames(as_scored(exposure.scaled(frame, hidden), cover) for frame in frames)

    tolerate = options.tolerate
    copies_held_out = in_light(_copies(held_out, tolerate, options.seed, 1, cover, team) or held_out)
    if options.tiles:
        if exposure:  # a tile's light is its image's, which is the same in all images from here on
            tolerate = tolerate.model_copy(update={"light": 0.0})
        tiles = training_tiles(in_light(train), options.size, options.seed, cover, of=team.size)
        borne = _copies(tiles, tolerate, options.seed, 0, None, team)
        return Prepared(tiles, borne, copies_held_out, in_light(held_out), exposure, None)
    images = Prepared(
        in_light(train),
        in_light(_copies(train, tolerate, options.seed, 0, cover, team)),
        copies_held_out,
        in_light(held_out),
        exposure,
        team.first(lambda: _registration(in_light(train), in_light(held_out), options, device))
        if options.align
        else None,
    )
    return images.in_place() if images.registration and images.registration.on else images


def _exposure(
    train: Sequence[Frame],
    held_out: Sequence[Frame],
    options: FitOptions,
    hidden: np.ndarray | None,
    device: torch.device | str,
) -> Exposure | None:
    """The light that images are brought to; none where they stay as they are."""
    if options.exposure != "auto":
        return learned(options.exposure, train, hidden) if options.exposure else None
    if options.tiles or options.evidence == "student":  # neither has scores by place
        return None
    correlation = follows_brightness(train, held_out, options.backbone, options.tolerate.light, hidden, device)
    if correlation is None:
        return None
    return learned("image", train, hidden).model_copy(update={"correlation": round(correlation, 4)})


def _registration(
    train: Sequence[Frame], held_out: Sequence[Frame], options: FitOptions, device: torch.device | str
) -> Registration:
    """What good images say of their places; off where it would not help."""
    found = common_place(train)
    if not found.on:
        return found
    worth = gain(found, train, held_out, options.backbone, device)
    return found.judged(worth.mean, worth.low, worth.high)


def as_scored(frame: Frame, cover: Cover | None) -> Frame:
    """What is ignored is painted over."""
    return cover.painted(frame) if cover else frame


def _copies(
    frames: Sequence[Frame], tolerate: Tolerance, seed: int, purpose: int, cover: Cover | None, team: Team
) -> Sequence[Frame]:
    """One of each, as it is tolerated; none where nothing is."""
    if tolerate.none:
        return []
    draws = (np.random.default_rng((seed, team.place(index), purpose, 0)) for index in range(len(frames)))
    return KeptFrames(
        as_scored(jittered(frame, tolerate, rng), cover) for frame, rng in zip(frames, draws, strict=True)
    )


def check_area(frames: Iterable[Frame], options: FitOptions, ignore: IgnoredArea | None) -> None:
    """Raises FitError where images have another size than the area, ValueError where one is missing."""
    if (options.ignore is None) != (ignore is None):
        raise ValueError("options.ignore and the area that it stands for go together: see drawn_area and masked_area")
    if ignore is None:
        return
    sizes = Counter((frame.width, frame.height) for frame in frames)
    wrong = {size: count for size, count in sizes.items() if size != (ignore.width, ignore.height)}
    if wrong:
        width, height = next(iter(wrong))
        raise FitError(
            f"{sum(wrong.values())} of {sizes.total()} good images have another size (one has {width} x "
            f"{height} pixels) than the ignored area is for, {ignore.width} x {ignore.height}; fit on images "
            "of one size, or ignore nothing"
        )


def check_frames(train: Sequence[Frame], held_out: Sequence[Frame], options: FitOptions, team: Team = ALONE) -> None:
    """Raises FitError where good images are too few or all the same, ValueError for frames of a wrong shape."""
    trained, held = (int(count) for count in team.total_of(len(train), len(held_out)))
    if min(trained, held) < 2 * team.size and not team.alone:
        raise FitError(
            f"{trained} good images to train on and {held} held out are too few for {team.size} workers; "
            "set fit.workers to 1"
        )
    if trained < LEAST_TRAIN:
        raise FitError(f"{trained} good images to train on, at least {LEAST_TRAIN} are needed; collect more")
    if held < LEAST_HELD_OUT:
        raise FitError(
            f"{held} good images are held out, at least {LEAST_HELD_OUT} are needed to place a threshold; "
            "collect more good images"
        )
    first = train[0].pixels
    if all(np.array_equal(frame.pixels, first) for frame in itertools.islice(train, 1, None)):
        raise FitError(
            f"the {len(train)} good images to train on are one and the same picture; give pictures of different parts"
        )
    for frame in itertools.chain(train, held_out):
        if not options.tiles and frame.pixels.shape != (options.size, options.size, 3):
            raise ValueError(
                f"a frame has shape {frame.pixels.shape}, the options' size is {options.size}: read_frame(data, size)"
            )
