"""Which pixels of an image stand for the cells of its anomaly map."""

from __future__ import annotations

import numpy as np


def centre_pixels(cells: int, pixels: int) -> np.ndarray:
    """The pixel that holds each cell's centre along one axis."""
    centres: np.ndarray = np.minimum(((np.arange(cells) + 0.5) * pixels / cells).astype(np.int64), pixels - 1)
    return centres
