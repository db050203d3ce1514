"""The anomaly map at the original image's resolution.

Bilinear between cell centres, and the pixel at the centre of each cell shows at least that cell's value: so the largest
pixel is the image score, however the two grids lie on one another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.images.cells import centre_pixels


@dataclass(frozen=True)
class Window:
    """A rectangle of original pixels: rows top..bottom-1, columns left..right-1."""

    top: int
    bottom: int
    left: int
    right: int


def upsample(map_HW: np.ndarray, height: int, width: int, window: Window | None = None) -> np.ndarray:
    """Map [h, w] -> float32 pixels of the window, of the whole image if none."""
    window = window or Window(0, height, 0, width)
    y0, y1, fy = _neighbours(map_HW.shape[0], height, window.top, window.bottom)
    x0, x1, fx = _neighbours(map_HW.shape[1], width, window.left, window.right)
    values = map_HW.astype(np.float32, copy=False)
    across = values[:, x0] + (values[:, x1] - values[:, x0]) * fx
    upper = across[y0]
    pixels: np.ndarray = across[y1]
    pixels -= upper  # in place: on a large image, each array more costs as much as the arithmetic
    pixels *= fy[:, None]
    pixels += upper
    _raise_centres(pixels, values, height, width, window)
    return pixels


def window_above(map_HW: np.ndarray, level: float, height: int, width: int) -> Window | None:
    """The least window outside of which the upsampled map stays below `level`; none if it does everywhere."""
    rows = np.flatnonzero((map_HW >= level).any(axis=1))
    columns = np.flatnonzero((map_HW >= level).any(axis=0))
    if rows.size == 0:
        return None
    top, bottom = _reach(int(rows[0]), int(rows[-1]), map_HW.shape[0], height)
    left, right = _reach(int(columns[0]), int(columns[-1]), map_HW.shape[1], width)
    return Window(top, bottom, left, right)


def _reach(first: int, last: int, cells: int, pixels: int) -> tuple[int, int]:
    """Pixels that cells first..last can influence: up to the centres of the cells beside them."""
    scale = pixels / cells
    return max(0, int((first - 1) * scale)), min(pixels, int(np.ceil((last + 2) * scale)) + 1)


def _neighbours(cells: int, pixels: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel the cells before and after its centre, and how far it lies towards the second."""
    position = np.clip((np.arange(begin, end) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    before = np.minimum(position.astype(np.int64), cells - 1)
    return before, np.minimum(before + 1, cells - 1), (position - before).astype(np.float32)


def _raise_centres(pixels: np.ndarray, values: np.ndarray, height: int, width: int, window: Window) -> None:
    y, x = centre_pixels(values.shape[0], height), centre_pixels(values.shape[1], width)
    in_y = np.flatnonzero((y >= window.top) & (y < window.bottom))
    in_x = np.flatnonzero((x >= window.left) & (x < window.right))
    at = np.ix_(y[in_y] - window.top, x[in_x] - window.left)
    np.maximum.at(pixels, at, values[np.ix_(in_y, in_x)])
