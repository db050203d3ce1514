"""The colour scale of heat maps, and the one scale on which scores are shown everywhere in a report.

A score s (1.0 = the threshold) sits at s / (s + 1): nothing at 0, the threshold in the middle, no defect too strong to
fit. The ramp runs from night blue over violet, red and amber to near white. Its hues are interpolated in Oklab (Björn
Ottosson, "A perceptual color space for image processing", 2020) and its lightness rises evenly, so equal steps look
equal and the order survives in greyscale and for colour-blind eyes.
"""

from functools import lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray

HEAT_AT_THRESHOLD = 8192.0
LEGEND_TICKS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)

MASK = (0, 229, 255)  # what the model marked
TRUTH = (140, 255, 90)  # what the data set says
_ANCHORS = ("0c1033", "45217c", "8f2a8a", "cf3f67", "ee7a36", "f7bd44", "fcf7cf")

_LINEAR_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def place(score: float) -> float:
    """Where a score sits on the scale, 0 to 1; the threshold is at 0.5."""
    return 1.0 if score == inf else max(score, 0.0) / (max(score, 0.0) + 1)


@lru_cache(maxsize=1)
def ramp() -> NDArray[np.uint8]:
    """The colours [256, 3] along the scale."""
    anchors = np.array([[int(code[at : at + 2], 16) for at in (0, 2, 4)] for code in _ANCHORS]) / 255
    linear = np.where(anchors <= 0.04045, anchors / 12.92, ((anchors + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _LINEAR_TO_LMS.T) @ _LMS_TO_LAB.T
    steps = np.linspace(0, 1, 256)
    lightness = lab[0, 0] + (lab[-1, 0] - lab[0, 0]) * steps
    # Anchors sit where their own lightness is reached, so that evening the lightness out does not shift the hues.
    position = (lab[:, 0] - lab[0, 0]) / (lab[-1, 0] - lab[0, 0])
    a, b = np.interp(steps, position, lab[:, 1]), np.interp(steps, position, lab[:, 2])
    lms = (np.stack([lightness, a, b], axis=1) @ np.linalg.inv(_LMS_TO_LAB).T) ** 3
    back = np.clip(lms @ np.linalg.inv(_LINEAR_TO_LMS).T, 0, 1)
    encoded = np.where(back <= 0.0031308, back * 12.92, 1.055 * back ** (1 / 2.4) - 0.055)
    table: NDArray[np.uint8] = np.round(encoded * 255).astype(np.uint8)
    return table


def heat_colours(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGBA [H, W, 4] of a heat map in multiples of the threshold. What is well below the threshold is left clear."""
    scale = heat / (heat + 1)
    colours = np.empty((*heat.shape, 4), np.uint8)
    colours[:, :, :3] = ramp()[(scale * 255).astype(np.uint8)]
    colours[:, :, 3] = (np.clip((scale - 0.33) / 0.17, 0, 1) * 190).astype(np.uint8)
    return colours


def gradient_stops(count: int = 16) -> list[tuple[float, str]]:
    """(offset, colour) along the ramp, for the legend."""
    places = [step / (count - 1) for step in range(count)]
    return [(round(at, 3), "rgb({} {} {})".format(*ramp()[round(at * 255)])) for at in places]
