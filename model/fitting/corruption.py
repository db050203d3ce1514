"""Spoiling good images, so that the student learns to rebuild the good part from a spoiled one.

One to three defects an image: a ragged blob, a crooked line or a rectangle, filled with a piece of another good image,
another brightness, a rough texture or a plain colour. In the spirit of DRAEM (Zavrtanik et al., ICCV 2021) and of the
denoising student of DeSTSeg (Zhang et al., CVPR 2023), but from the product's own images and noise alone, and the
target is what the teacher sees in the good image. Nothing learns to recognise these defects: a network that did (it was
tried) knew them and not the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model.images.frames import Frame

_MOST_DEFECTS = 3
Shape = Callable[[np.random.Generator, int], np.ndarray]
Filling = Callable[[np.ndarray, Sequence[Frame], np.random.Generator], np.ndarray]


def corrupted(frame: Frame, others: Sequence[Frame], rng: np.random.Generator) -> Frame:
    """A copy of a good frame with one to three defects. others: good frames of the same size to take pieces from."""
    pixels = frame.pixels.astype(np.float32)
    for _ in range(int(rng.integers(1, _MOST_DEFECTS + 1))):
        inside_SS = _SHAPES[int(rng.integers(len(_SHAPES)))](rng, frame.size)
        filling = _FILLINGS[int(rng.integers(len(_FILLINGS)))](pixels, others, rng)
        opacity = rng.uniform(0.4, 1.0)
        mixed = (1 - opacity) * pixels + opacity * filling
        pixels = np.where(inside_SS[..., None], mixed, pixels)
    return Frame(np.clip(pixels, 0, 255).astype(np.uint8), frame.width, frame.height)


def _blob(rng: np.random.Generator, side: int) -> np.ndarray:
    """A disc whose edge is bent by noise, bool [S, S]."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    centre_y, centre_x = rng.uniform(0.1, 0.9, 2) * side
    radius = rng.uniform(0.04, 0.2) * side
    distance = ((y - centre_y) ** 2 + (x - centre_x) ** 2) / radius**2
    blob: np.ndarray = 0.9 - distance + 0.8 * _noise(rng, side, int(rng.choice([16, 8, 4]))) > 0
    return blob


def _line(rng: np.random.Generator, side: int) -> np.ndarray:
    """A walk that keeps its direction for a while, a few pixels wide, bool [S, S]."""
    length = max(2, int(rng.uniform(0.1, 0.7) * side))
    turn = np.zeros(length)
    for step, noise in enumerate(rng.normal(0, 15 / side, length)):
        turn[step] = 0.9 * turn[step - 1] + noise
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(turn)
    y, x = (rng.uniform(0.1, 0.9) * side + np.cumsum(part) for part in (np.sin(angle), np.cos(angle)))
    line = np.zeros((side, side), dtype=bool)
    width = int(rng.integers(1, max(2, side // 51)))
    for shift_y in range(width):
        for shift_x in range(width):
            rows, columns = (y + shift_y).astype(int), (x + shift_x).astype(int)
            inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
            line[rows[inside], columns[inside]] = True
    return line


def _rectangle(rng: np.random.Generator, side: int) -> np.ndarray:
    height, width = np.maximum(1, rng.uniform(0.04, 0.3, 2) * side).astype(int)
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    rectangle = np.zeros((side, side), dtype=bool)
    rectangle[top : top + height, left : left + width] = True
    return rectangle


def _piece(_: np.ndarray, others: Sequence[Frame], rng: np.random.Generator) -> np.ndarray:
    """Another good image, shifted, and turned half of the time: the right texture in the wrong place."""
    other = others[int(rng.integers(len(others)))].pixels
    side = other.shape[0]
    shifted = np.roll(other, tuple(rng.integers(side // 8, side - side // 8, 2)), axis=(0, 1))
    return (shifted.transpose(1, 0, 2)[::-1] if rng.random() < 0.5 else shifted).astype(np.float32)


def _brightness(pixels: np.ndarray, _: Sequence[Frame], rng: np.random.Generator) -> np.ndarray:
    shift = rng.choice([-1, 1]) * rng.uniform(20, 110) + rng.normal(0, 10, 3)
    lit: np.ndarray = pixels + shift.astype(np.float32)
    return lit


def _texture(pixels: np.ndarray, _: Sequence[Frame], rng: np.random.Generator) -> np.ndarray:
    side = pixels.shape[0]
    rough = _noise(rng, side, max(2, side // int(rng.choice([4, 8, 16, 32]))))
    texture: np.ndarray = rng.uniform(64, 192, 3).astype(np.float32) + rough[..., None] * rng.uniform(10, 60)
    return texture


def _colour(pixels: np.ndarray, _: Sequence[Frame], rng: np.random.Generator) -> np.ndarray:
    """One colour, or half of the time one gray."""
    colour = rng.uniform(0, 255, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0, 255))
    return np.broadcast_to(colour.astype(np.float32), pixels.shape)


def _noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Smooth value noise of deviation below 1, float32 [S, S], with `cells` bumps along a side."""
    grid = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells, side, endpoint=False)
    cell = at.astype(int)
    part = (at - cell).astype(np.float32)
    part = part * part * (3 - 2 * part)
    across = grid[:, cell] + (grid[:, cell + 1] - grid[:, cell]) * part
    noise: np.ndarray = across[cell] + (across[cell + 1] - across[cell]) * part[:, None]
    return noise


_SHAPES: tuple[Shape, ...] = (_blob, _line, _rectangle)
_FILLINGS: tuple[Filling, ...] = (_piece, _brightness, _texture, _colour)
