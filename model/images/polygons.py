"""Polygons on an image, as a person lists them, and the pixels within."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

Point = tuple[float, float]
Polygon = tuple[Point, ...]
"""Corners in pixels of the original image, from (0, 0), the upper left corner of its first pixel."""

_LEAST_CORNERS = 3


def as_given(value: Any, besides: str) -> Any:
    """Polygons, or a word of another meaning, checked in words; pydantic checks the types once more.

    besides: what it may be besides polygons, for the error that says so.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):  # from the environment
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"a list of polygons that is no JSON: {error}") from error
    if value is None or (isinstance(value, str) and value):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"it is {besides}, or a list of polygons, each a list of corners [x, y]")
    for number, polygon in enumerate(value, 1):
        if not isinstance(polygon, list | tuple) or len(polygon) < _LEAST_CORNERS:
            raise ValueError(f"polygon {number} needs at least {_LEAST_CORNERS} corners, each [x, y] in pixels")
        for corner in polygon:
            if not _is_point(corner):
                raise ValueError(f"polygon {number} has the corner {corner!r}: it is two numbers of pixels, [x, y]")
    return tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in value)


def _is_point(corner: Any) -> bool:
    return (
        isinstance(corner, list | tuple)
        and len(corner) == 2
        and all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < float("inf") for n in corner)
    )


Ignore = Annotated[
    tuple[Polygon, ...] | str | None, BeforeValidator(partial(as_given, besides="the path of a mask image"))
]
"""How an area is asked for: polygons, or the path of a mask image; None ignores nothing."""


def fill(mask_HW: np.ndarray, polygon: Polygon) -> None:
    """Set the pixels whose centres lie within the polygon, by the even-odd rule, in place."""
    corners = np.asarray(polygon, dtype=np.float64)
    ends = np.roll(corners, -1, axis=0)
    columns = np.arange(mask_HW.shape[1]) + 0.5
    first, last = np.floor(corners[:, 1].min()), np.ceil(corners[:, 1].max())
    for row in range(max(0, int(first)), min(mask_HW.shape[0], int(last))):
        y = row + 0.5
        crosses = (corners[:, 1] <= y) != (ends[:, 1] <= y)
        (x0, y0), (x1, y1) = corners[crosses].T, ends[crosses].T
        # Rounded, so that lines which lie on one another cross a row at the same place and enclose nothing.
        crossings = np.sort(np.round(x0 + (y - y0) / (y1 - y0) * (x1 - x0), 6))
        mask_HW[row] |= np.searchsorted(crossings, columns, side="right") % 2 == 1
