"""Made-up defects on good images: a probe of whether a model sees anything at all.

Before the first real defect is labelled, a model that finds none of these should not be promoted. They say nothing
about the escape rate on real defects. In the spirit of CutPaste (Li et al., CVPR 2021) and its scars.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model.images.frames import Frame

_LEAST_CHANGE = 24.0
"""Mean change of the touched pixels, in gray levels out of 255, below which a defect is drawn again."""
_TRIES = 20
_PLACES = 200
_LEAST_SEEN = 0.5
"""Part of a defect that must lie where the image counts, or it is drawn again, elsewhere."""


def spoil(frame: Frame, rng: np.random.Generator, side: int | None = None, hidden: np.ndarray | None = None) -> Frame:
    """A copy of a good frame with one defect: a patch from elsewhere, a scratch, or a blob of other brightness.

    side: of a square anywhere in the image that the defect is drawn in and to the scale of; none takes all of a square
    image. hidden: pixels of the frame that are ignored, bool: no defect lies there.
    """
    if hidden is not None:
        return _spoil_in_sight(frame, rng, side, hidden)
    if side is not None and frame.pixels.shape[:2] != (side, side):
        return _spoil_within(frame, rng, side)
    draw = _KINDS[int(rng.integers(len(_KINDS)))]
    for _ in range(_TRIES):
        pixels = frame.pixels.astype(np.float32)
        touched = draw(pixels, rng)
        spoiled = np.clip(pixels, 0, 255).astype(np.uint8)
        change = np.abs(spoiled.astype(np.float32) - frame.pixels)[touched]
        if change.size and change.mean() >= _LEAST_CHANGE:
            return Frame(spoiled, frame.width, frame.height)
        # Patches of a uniform image all look the same; a scratch always shows.
        draw = _scratch
    return Frame(spoiled, frame.width, frame.height)


def _spoil_in_sight(frame: Frame, rng: np.random.Generator, side: int | None, hidden: np.ndarray) -> Frame:
    """The first of some defects that is seen well enough, or of all the best seen, without what of it is ignored."""
    best, most = frame, -1.0
    for _ in range(_PLACES):
        spoiled = spoil(frame, rng, side)
        touched = (spoiled.pixels != frame.pixels).any(axis=2)
        seen = float((touched & ~hidden).sum() / max(1, touched.sum()))
        if seen > most:
            best, most = spoiled, seen
        if seen >= _LEAST_SEEN:
            break
    return Frame(np.where(hidden[..., None], frame.pixels, best.pixels), frame.width, frame.height)


def _spoil_within(frame: Frame, rng: np.random.Generator, side: int) -> Frame:
    height, width = frame.pixels.shape[:2]
    side = min(side, height, width)
    top, left = (int(rng.integers(n - side + 1)) for n in (height, width))
    pixels = frame.pixels.copy()
    window = pixels[top : top + side, left : left + side]
    window[:] = spoil(Frame(window.copy(), side, side), rng).pixels
    return Frame(pixels, frame.width, frame.height)


def _patch(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paste a rectangle from elsewhere, upside down half of the time. Returns the touched pixels, bool [S, S]."""
    side = pixels.shape[0]
    height, width = (int(v) for v in rng.integers(max(2, side // 16), max(3, side // 5), size=2))
    from_y, to_y = rng.integers(0, side - height + 1, size=2)
    from_x, to_x = rng.integers(0, side - width + 1, size=2)
    source = pixels[from_y : from_y + height, from_x : from_x + width].copy()
    pixels[to_y : to_y + height, to_x : to_x + width] = source[::-1] if rng.random() < 0.5 else source
    touched = np.zeros((side, side), dtype=bool)
    touched[to_y : to_y + height, to_x : to_x + width] = True
    return touched


def _scratch(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a slightly bent line, dark on bright ground and bright on dark."""
    side = pixels.shape[0]
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
    along = np.linspace(-0.5, 0.5, 4 * side) * rng.uniform(0.15, 0.45) * side
    curve = bend * along**2 / side
    y = rng.uniform(0.25, 0.75) * side + along * np.sin(angle) + curve * np.cos(angle)
    x = rng.uniform(0.25, 0.75) * side + along * np.cos(angle) - curve * np.sin(angle)
    touched = np.zeros((side, side), dtype=bool)
    thickness = max(1, round(side * rng.uniform(0.006, 0.016)))
    for offset_y in range(thickness):
        for offset_x in range(thickness):
            rows, columns = (y + offset_y).astype(int), (x + offset_x).astype(int)
            inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
            touched[rows[inside], columns[inside]] = True
    _shift(pixels, touched, rng.uniform(50, 110))
    return touched


def _blob(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stain an ellipse with a ragged edge."""
    side = pixels.shape[0]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    centre_y, centre_x = rng.uniform(0.2, 0.8, size=2) * side
    radius_y, radius_x = rng.uniform(0.03, 0.1, size=2) * side
    angle = np.arctan2(y - centre_y, x - centre_x)
    ragged = 1 + 0.25 * np.sin(angle * rng.integers(3, 8) + rng.uniform(0, 6))
    touched: np.ndarray = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 < ragged
    _shift(pixels, touched, rng.uniform(40, 100))
    return touched


def _shift(pixels: np.ndarray, touched: np.ndarray, by: float) -> None:
    """Change the brightness by so many gray levels, away from what is there."""
    if touched.any():
        pixels[touched] += by if pixels[touched].mean() < 128 else -by


_KINDS: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (_patch, _scratch, _blob)
