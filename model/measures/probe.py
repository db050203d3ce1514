"""Made-up faint defects on good images: how much of what nobody has labelled yet would a version see?

Before the first real defect there is nothing else to compare two versions by. What the defects are decides whether that
says anything: pasted patches and stains were found by every detector, and ranked them at random or the wrong way round.
Two kinds, drawn faintly, rank detectors much as real defects do (docs/method.md, "The probe"):

    crack   a line of a hair's width that wanders, darker than a bright ground and brighter than a dark one
    dent    the surface itself is pushed aside by some pixels: nothing is added, and no color is new

Each lies on the part, not on an even background around it, and is drawn at STRENGTHS: so much of the full defect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from model.images.frames import Frame

STRENGTHS = (0.5, 1.0)
PROBE_IMAGES = 64
"""Good images that are enough to compare two versions by."""
_CRACK_CONTRAST = 80.0
"""Gray levels of 255 at full strength."""
_BRIGHT, _DARK = 100, 50
_PLACES = 50
_LEAST_SEEN = 0.5
"""Part of a defect that must lie where the image counts, or it is drawn again, elsewhere."""
_EVEN_RIM = 0.7
_LEAST_PART = 0.02
_NORMAL_95 = 1.959964


def spoiled(frame: Frame, rng: np.random.Generator, side: int, hidden: np.ndarray | None = None) -> list[Frame]:
    """Copies of a good frame, each with one defect: every kind at every one of STRENGTHS.

    side: of a square of the frame that a defect is drawn in and to the scale of, the model's size. hidden: pixels of
    the frame that are ignored, bool: they stay as they are.
    """
    return [one for draw in (_crack, _dent) for one in _at_strengths(frame, draw, rng, side, hidden)]


Defect = Callable[[float], np.ndarray]
"""Strength to the square's pixels, float32 [S, S, 3]."""
_Draw = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[Defect, np.ndarray]]
"""A square and where its part lies -> a defect and what it touches, bool [S, S]."""


def _at_strengths(
    frame: Frame, draw: _Draw, rng: np.random.Generator, side: int, hidden: np.ndarray | None
) -> list[Frame]:
    height, width = frame.pixels.shape[:2]
    side = min(side, height, width)
    part = _part(frame.pixels)
    counts = np.ones((height, width), dtype=bool) if hidden is None else ~hidden
    best: tuple[float, np.ndarray, slice, slice, Defect] | None = None
    places = np.argwhere(part & counts) if (part & counts).any() else np.argwhere(counts)
    for _ in range(_PLACES):
        y, x = places[int(rng.integers(len(places)))]
        top, left = (int(np.clip(at - side // 2, 0, n - side)) for at, n in ((y, height), (x, width)))
        rows, columns = slice(top, top + side), slice(left, left + side)
        defect, touched = draw(
            frame.pixels[rows, columns].astype(np.float32), np.array([y - top, x - left], dtype=float), rng
        )
        seen = float(counts[rows, columns][touched].mean()) if touched.any() else 0.0
        if best is None or seen > best[0]:
            best = seen, counts[rows, columns], rows, columns, defect
        if seen >= _LEAST_SEEN:
            break
    assert best is not None
    _, shown, rows, columns, defect = best
    frames = []
    for strength in STRENGTHS:
        pixels = frame.pixels.copy()
        square = pixels[rows, columns]
        square[shown] = np.clip(np.rint(defect(strength)), 0, 255).astype(np.uint8)[shown]
        frames.append(Frame(pixels, frame.width, frame.height))
    return frames


def _crack(square_SS3: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> tuple[Defect, np.ndarray]:
    side = len(square_SS3)
    steps = max(4, int(rng.uniform(0.12, 0.6) * side))
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, steps))
    path = (start + 0.5 * np.cumsum(np.stack([np.sin(headings), np.cos(headings)], axis=1), axis=0)).astype(int)
    path = path[((path >= 0) & (path < side)).all(axis=1)]
    line_SS = np.zeros((side, side), dtype=np.float32)
    line_SS[path[:, 0], path[:, 1]] = 1
    soft_SS = np.minimum(1, 3 * _blurred(line_SS, rng.uniform(0.5, 1.0)))
    ground = float(square_SS3[path[:, 0], path[:, 1]].mean()) if len(path) else 128.0
    sign = -1 if ground > _BRIGHT else 1 if ground < _DARK else rng.choice((-1, 1))
    change_SS1 = (sign * _CRACK_CONTRAST * soft_SS)[..., None]
    return lambda strength: square_SS3 + strength * change_SS1, soft_SS > 0.5


def _dent(square_SS3: np.ndarray, centre: np.ndarray, rng: np.random.Generator) -> tuple[Defect, np.ndarray]:
    side = len(square_SS3)
    radius = rng.uniform(0.03, 0.1) * side
    angle, most = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8) * radius
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bump_SS = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * radius**2))
    image_13SS = torch.from_numpy(square_SS3).permute(2, 0, 1)[None]

    def at(strength: float) -> np.ndarray:
        moved_y, moved_x = (
            axis + strength * most * bump_SS * turn for axis, turn in ((y, np.sin(angle)), (x, np.cos(angle)))
        )
        grid_SS2 = torch.from_numpy(np.stack([(2 * moved_x + 1) / side - 1, (2 * moved_y + 1) / side - 1], axis=-1))
        found = F.grid_sample(
            image_13SS, grid_SS2[None].float(), mode="bilinear", padding_mode="reflection", align_corners=False
        )
        pixels: np.ndarray = found[0].permute(1, 2, 0).numpy()
        return pixels

    return at, bump_SS > 0.5


def _blurred(line_SS: np.ndarray, deviation: float) -> np.ndarray:
    reach = int(np.ceil(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        line_SS = np.apply_along_axis(np.convolve, axis, line_SS, kernel, mode="same")
    return line_SS


def _part(pixels_HW3: np.ndarray) -> np.ndarray:
    """Where the part is, bool [H, W]: what differs from the image's rim, where that is even; else everywhere."""
    height, width = pixels_HW3.shape[:2]
    rim = max(2, min(height, width) // 32)
    inner = np.ones((height, width), dtype=bool)
    inner[rim:-rim, rim:-rim] = False
    values_HW3 = pixels_HW3.astype(np.float32)
    ground = np.median(values_HW3[inner], axis=0)
    off_HW = np.abs(values_HW3 - ground).max(axis=2)
    limit = max(12.0, 6 * float(np.median(off_HW[inner])))
    part: np.ndarray = off_HW > limit
    if part[inner].mean() > 1 - _EVEN_RIM or part.mean() < _LEAST_PART:
        return np.ones((height, width), dtype=bool)
    return part


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What a version made of good images and of their spoiled copies.

    above_NN: [i, j] is the share of image i's copies that score higher than good image j; equal counts half.
    """

    above_NN: np.ndarray

    @staticmethod
    def of(good: Sequence[float], copies: Sequence[Sequence[float]]) -> Sensitivity:
        """Scores of N good images, and of each one's copies."""
        good_N, copies_NK = np.asarray(good, dtype=np.float64), np.asarray(copies, dtype=np.float64)
        off_NKN = copies_NK[:, :, None] - good_N
        return Sensitivity(((off_NKN > 0) + 0.5 * (off_NKN == 0)).mean(axis=1))

    def among(self, images: Sequence[int]) -> Sensitivity:
        """What it would be on these of the images alone."""
        return Sensitivity(self.above_NN[np.ix_(images, images)])

    @property
    def value(self) -> float:
        """AUROC of copies against good images, 0.5 is blind: the mean over kinds and strengths."""
        return float(self.above_NN.mean())


@dataclass(frozen=True)
class Lead:
    """By how much one version is more sensitive than another: a difference of shares of 1, with its 95% interval."""

    mean: float
    low: float
    high: float


def lead(one: Sensitivity, other: Sensitivity) -> Lead:
    """Of one over the other, on the same images and copies, by the jackknife over images.

    An image and its copies are left out together, for they are alike: AUROCs of clustered data (Obuchowski, Biometrics
    1997) need that.
    """
    difference_NN = one.above_NN - other.above_NN
    images = len(difference_NN)
    mean = float(difference_NN.mean())
    if images < 3:
        return Lead(mean, -1.0, 1.0)
    rows, columns, own = difference_NN.sum(axis=1), difference_NN.sum(axis=0), np.diagonal(difference_NN)
    left_out = (difference_NN.sum() - rows - columns + own) / (images - 1) ** 2
    error = float(np.sqrt((images - 1) / images * np.square(left_out - left_out.mean()).sum()))
    return Lead(mean, mean - _NORMAL_95 * error, mean + _NORMAL_95 * error)
