"""Scalar fields over the picture: fractal noise, irregular blobs, soft edges and tapered strokes.

Everything is float32 [size, size]. Noise is made once per (size, cell) and then cropped and flipped per image: a fresh
field for every image would cost more than all the shading together.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32]
Points = NDArray[np.float64]

_NOISE_SEED = 20_11  # the noise bank's own seed: an image's seed only chooses where it is cropped


@lru_cache(maxsize=4)
def pixel_grid(size: int) -> tuple[Field, Field]:
    """x [1, size] and y [size, 1] of pixel centres; they broadcast to a full field."""
    axis = np.arange(size, dtype=np.float32) + np.float32(0.5)
    return axis[None, :], axis[:, None]


@lru_cache(maxsize=32)
def _noise_bank(side: int, cell_x: float, cell_y: float, octaves: int) -> Field:
    """Fractal noise [side, side], mean 0 and deviation 1; a cell is the coarsest wavelength in pixels along x and y."""
    rng = np.random.default_rng([_NOISE_SEED, side, int(cell_x * 8), int(cell_y * 8), octaves])
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        width = max(2, round(side * 2**octave / cell_x) + 1)
        height = max(2, round(side * 2**octave / cell_y) + 1)
        grid = rng.standard_normal((min(height, side), min(width, side)), dtype=np.float32)
        total += np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)) * 0.55**octave
    total -= total.mean()
    total /= total.std()
    total.setflags(write=False)
    return total


def noise(
    rng: np.random.Generator,
    size: int,
    cell_x: float,
    cell_y: float | None = None,
    *,
    octaves: int = 3,
    flip: bool = True,
) -> Field:
    """A read-only view of the noise bank at a place drawn from ``rng``. Cells are pixels of a 512-pixel picture."""
    scale = size / 512
    bank = _noise_bank(size + size // 2, max(1.0, cell_x * scale), max(1.0, (cell_y or cell_x) * scale), octaves)
    top, left = rng.integers(0, size // 2, 2)
    view = bank[top : top + size, left : left + size]
    turns = rng.integers(0, 2, 2)
    if flip:
        view = view[:: 1 - 2 * turns[0], :: 1 - 2 * turns[1]]
    return view


def rise(values: Field, start: float, stop: float) -> Field:
    """Smooth step from 0 at ``start`` to 1 at ``stop`` (either order)."""
    t = (values - np.float32(start)) * np.float32(1 / (stop - start))
    np.clip(t, 0, 1, out=t)
    smooth: Field = t * t * (3 - 2 * t)
    return smooth


def blob(
    rng: np.random.Generator,
    size: int,
    centre: tuple[float, float],
    radius: float,
    *,
    stretch: float = 1.0,
    ragged: float = 0.3,
) -> Field:
    """Distance from ``centre`` in units of ``radius``, bent by noise: below 1 is inside.

    ``stretch`` makes it long, at a random angle.
    """
    x, y = pixel_grid(size)
    angle = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(angle) / radius), np.float32(np.sin(angle) / radius)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    # Bends about as long as the blob is wide, so that it stays one piece without looking like a circle.
    cell = 2.0 ** round(np.log2(max(8.0, 2.2 * radius * 512 / size)))
    along = (dx * c + dy * s) / np.float32(stretch) + np.float32(ragged) * noise(rng, size, cell, octaves=3)
    across = dy * c - dx * s + np.float32(ragged) * noise(rng, size, cell, octaves=3)
    outline: Field = np.hypot(along, across)
    return outline


def wandering_line(
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
    *,
    bend: float,
    jitter: float,
    steps: int = 60,
) -> Points:
    """Points [steps, 2] of a curve that sets out at ``angle`` and bends by about ``bend`` radians with small jitter."""
    turns = np.linspace(0, rng.uniform(-bend, bend), steps) + np.cumsum(rng.normal(0, jitter, steps))
    headings = angle + turns
    stride = length / steps
    moves = np.stack([np.cos(headings), np.sin(headings)], axis=1) * stride
    return np.asarray(start) + np.cumsum(moves, axis=0)


def stroke(size: int, points: Points, width: float, *, taper: float = 0.8) -> Field:
    """Coverage 0..1 of a line through ``points``, ``width`` pixels wide, thinning to both ends by ``taper``."""
    over = 4  # drawn larger and averaged down, so that a one-pixel scratch has a soft edge
    coverage = np.zeros((size, size), np.float32)
    margin = int(width) + 2
    left, top = np.clip(points.min(axis=0).astype(int) - margin, 0, size)
    right, bottom = np.clip(points.max(axis=0).astype(int) + margin, 0, size)
    if right <= left or bottom <= top:
        return coverage
    canvas = Image.new("L", (int(right - left) * over, int(bottom - top) * over))
    pen = ImageDraw.Draw(canvas)
    drawn = (points - (left, top)) * over
    position = np.linspace(-1, 1, len(points) - 1)
    widths = np.maximum(1, width * over * (1 - taper * position**2))
    for (x0, y0), (x1, y1), wide in zip(drawn[:-1], drawn[1:], widths, strict=True):
        pen.line((x0, y0, x1, y1), fill=255, width=max(1, round(wide)))
        pen.ellipse((x1 - wide / 2, y1 - wide / 2, x1 + wide / 2, y1 + wide / 2), fill=255)
    coverage[top:bottom, left:right] = np.asarray(canvas.reduce(over), dtype=np.float32) * np.float32(1 / 255)
    return coverage


def shifted(field: Field, dx: int, dy: int) -> Field:
    """The field moved by whole pixels, zero where nothing moved in: the lit and the dark flank of a groove."""
    moved = np.zeros_like(field)
    height, width = field.shape
    moved[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = field[
        max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)
    ]
    return moved
