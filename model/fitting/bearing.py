"""What a version bears of what it was told to tolerate, and what that costs.

Held-out good images are changed as far as the stated range goes, one change at a time, and judged: the share that is
rejected is what a plant would see if the lamp were that dim. The price is sensitivity: how many made-up defects
(model/measures/probe.py) are found at the version's own threshold, and how many by the same version had it been told to
tolerate nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from model.engine.engine import Engine
from model.images.frames import Frame
from model.images.tiles import parts
from model.images.tolerance import Tolerance, blurred, compressed, lit, moved, noisy
from model.manifest import Bearing, Borne, ModelBundle
from model.measures.probe import spoiled

MOST_PIECES = 32
"""Frames, or tiles of frames, that a look takes: some seconds."""

_Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def borne(bundle: ModelBundle, strict: ModelBundle, held_out: Sequence[Frame], device: str) -> Bearing:
    """Measure a version. strict: the same, had it tolerated nothing. held_out: good frames as they were read."""
    assert bundle.manifest.tolerance is not None
    preprocessing, cover = bundle.manifest.preprocessing, bundle.manifest.cover()
    each = len(parts(held_out[0], preprocessing.size, preprocessing.tiles, cover))
    frames = held_out[: max(4, MOST_PIECES // each)]
    engine = Engine({"told": bundle, "strict": strict}.__getitem__, device=device)

    def rejected(frames: Sequence[Frame], key: str) -> float:
        return float(np.mean([one.normalised_score >= 1 for one in engine.score(frames, [key] * len(frames))]))

    changes = []
    for what, change in _changes(bundle.manifest.tolerance):
        changed = [
            Frame(change(frame.pixels, np.random.default_rng(index)), frame.width, frame.height)
            for index, frame in enumerate(frames)
        ]
        changes.append(Borne(change=what, false_reject_rate=rejected(changed, "told")))
    hidden = cover.hidden if cover else None
    copies = [
        copy
        for index, frame in enumerate(frames)
        for copy in spoiled(frame, np.random.default_rng((0, index)), preprocessing.size, hidden)
    ]
    return Bearing(
        images=len(frames),
        changes=tuple(changes),
        found=rejected(copies, "told"),
        found_if_strict=rejected(copies, "strict"),
    )


def _changes(tolerance: Tolerance) -> Iterator[tuple[str, _Change]]:
    """What is tolerated, each at the end of its range."""
    t = tolerance
    if t.light:
        yield f"light -{t.light:.0%}", lambda pixels, _: lit(pixels, 1 - t.light)
        yield f"light +{t.light:.0%}", lambda pixels, _: lit(pixels, 1 + t.light)
    if t.shift_px:
        yield f"a shift of {t.shift_px:g} px", lambda pixels, rng: moved(pixels, *_corner(rng, t.shift_px), 0)
    if t.turn_deg:
        yield f"a turn of {t.turn_deg:g} degrees", lambda pixels, rng: moved(pixels, 0, 0, _sign(rng) * t.turn_deg)
    if t.blur_px:
        yield f"a blur of {t.blur_px:g} px", lambda pixels, _: blurred(pixels, t.blur_px)
    if t.noise:
        yield f"noise of {t.noise:g}", lambda pixels, rng: noisy(pixels, t.noise, rng)
    if t.jpeg < 100:
        yield f"JPEG quality {t.jpeg}", lambda pixels, _: compressed(pixels, t.jpeg)


def _corner(rng: np.random.Generator, by: float) -> tuple[float, float]:
    return _sign(rng) * by, _sign(rng) * by


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))
