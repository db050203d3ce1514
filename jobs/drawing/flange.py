"""A turned steel flange on a dark conveyor belt, seen from above under two bar lights.

The part is a solid of revolution, so nearly everything is a table over the radius. What breaks the symmetry is the
light on the turning marks (the bow-tie that any face-turned part shows), the bolt holes, and whatever went wrong.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jobs.drawing.camera import Radiance
from jobs.drawing.fields import Field, noise, pixel_grid, rise

# Radii in pixels of a 512-pixel picture.
OUTER, CHAMFER, STEP, HUB, BORE = 207.0, 199.0, 104.0, 66.0, 44.0
PITCH_CIRCLE, HOLE, HOLES = 150.0, 17.0, 6
BELT = OUTER + 16  # beyond it is nothing but belt: the part lies within some 6 pixels of the middle
_TABLE_STEPS = 8  # table entries per pixel of radius
_STEEL = np.array([0.97, 1.0, 1.04], np.float32)
_BELT = np.array([0.92, 1.0, 0.98], np.float32)


@dataclass
class Hole:
    x: float
    y: float
    radius: float


@dataclass
class Part:
    """One flange in front of the camera; defects change it before it is shaded (holes) or after (surface)."""

    size: int
    centre: tuple[float, float]
    light: tuple[float, float]  # unit vector towards the main light, in the picture's plane
    radius: Field  # distance from the part's centre, in 512-pixel units
    cosine: Field  # of the angle between a pixel's direction from the centre and the main light
    holes: list[Hole]
    belt: Field
    grey: Field = field(init=False)  # radiance of the whole scene before colour
    metal: Field = field(init=False)  # 1 on the part's metal, 0 on belt, bore and holes
    tint: Radiance | None = None  # colour of what lies on the part (oil, rust), [H, W, 3]

    @property
    def scale(self) -> float:
        return self.size / 512

    def place(self, radius: float, angle: float) -> tuple[float, float]:
        """Pixel at a polar place on the part; ``radius`` in 512-pixel units."""
        reach = radius * self.scale
        return self.centre[0] + reach * float(np.cos(angle)), self.centre[1] + reach * float(np.sin(angle))


@dataclass(frozen=True)
class _Profile:
    """Tables over the radius: how a ring answers flat light, light from one side, and grazing light on its marks."""

    flat: NDArray[np.float32]
    sided: NDArray[np.float32]
    sheen: NDArray[np.float32]


@lru_cache(maxsize=1)
def _profile() -> _Profile:
    radius = np.arange(0, 400 * _TABLE_STEPS) / _TABLE_STEPS
    rng = np.random.default_rng(5)

    def band(inner: float, outer: float, soft: float = 0.9) -> NDArray[np.float64]:
        return np.clip((radius - inner) / soft + 0.5, 0, 1) * np.clip((outer - radius) / soft + 0.5, 0, 1)

    def marks(wavelength: float) -> NDArray[np.float64]:
        knots = np.arange(0, 400, wavelength)
        return np.interp(radius, knots, rng.normal(0, 1, len(knots)))

    face, hub = band(STEP, CHAMFER), band(HUB, STEP - 5)
    step, chamfer, lip = band(STEP - 5, STEP), band(CHAMFER, OUTER), band(BORE, HUB - 18)
    recess = band(HUB - 18, HUB)
    turning = marks(1.3) * 0.6 + marks(3.1) * 0.5 + 0.7 * np.sin(2 * np.pi * radius / 4.2)
    flat = (
        0.155 * face + 0.21 * hub + 0.15 * step + 0.27 * chamfer + 0.20 * lip + 0.08 * recess + 0.006 * band(-1, BORE)
    )
    flat *= 1 + 0.05 * turning * (face + hub + lip)
    sided = 0.11 * step + 0.235 * chamfer - 0.06 * recess + 0.018 * turning * (face + hub)
    sheen = 0.33 * face * (1 + 0.16 * turning) + 0.30 * hub * (1 + 0.1 * turning) + 0.12 * lip + 0.05 * recess
    return _Profile(flat.astype(np.float32), sided.astype(np.float32), sheen.astype(np.float32))


def set_up(rng: np.random.Generator, size: int) -> Part:
    """Place a part: its pose, the lamps' angle and the belt beneath."""
    scale = size / 512
    centre = (size / 2 + rng.normal(0, 2.0) * scale, size / 2 + rng.normal(0, 2.0) * scale)
    turn = rng.normal(0, 0.015)  # radians: a pin in the nest keys the part
    lamp = -2.2 + rng.normal(0, 0.05)
    light = (float(np.cos(lamp)), float(np.sin(lamp)))
    x, y = pixel_grid(size)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    distance = np.hypot(dx, dy)
    cosine = (dx * np.float32(light[0]) + dy * np.float32(light[1])) / np.maximum(distance, 1)
    holes: list[Hole] = []
    part = Part(size, centre, light, distance * np.float32(1 / scale), cosine, holes, _belt(rng, size))
    for number in range(HOLES):
        hx, hy = part.place(PITCH_CIRCLE, turn + number * 2 * np.pi / HOLES)
        holes.append(Hole(hx, hy, HOLE * scale))
    return part


def background(size: int) -> NDArray[np.bool_]:
    """The belt around the part, wherever in its nest the part lies, [H, W]."""
    x, y = pixel_grid(size)
    beyond: NDArray[np.bool_] = np.hypot(x - size / 2, y - size / 2) > BELT * size / 512
    return beyond


def _belt(rng: np.random.Generator, size: int) -> Field:
    """Matte rubber, wiped before each shift: a fine grain and faint scuffs along the direction of travel."""
    rubber = np.float32(0.05) + np.float32(0.002) * noise(rng, size, 3.0, octaves=1)
    rubber += np.float32(0.0015) * noise(rng, size, 90.0, 5.0, octaves=3)
    rubber += np.float32(0.0015) * noise(rng, size, 160.0, octaves=3)
    belt: Field = rubber
    return belt


def shade(rng: np.random.Generator, part: Part) -> None:
    """Light the part: fills ``grey`` and ``metal``. Draws the same numbers whatever the holes are."""
    size, profile = part.size, _profile()
    index = np.minimum(part.radius * _TABLE_STEPS, len(profile.flat) - 1).astype(np.int32)
    cosine2 = part.cosine * part.cosine
    # Turning marks run along the tangent: they shine at the camera where the tangent is square to the lamp's direction.
    main = cosine2 * cosine2
    main *= main
    second = 1 - cosine2
    second *= second
    grey = np.take(profile.sheen, index)
    grey *= main * np.float32(1.15) + second * second * np.float32(0.40) + np.float32(0.10)
    grey += np.take(profile.flat, index)
    grey += np.take(profile.sided, index) * part.cosine
    grey *= (
        1 + np.float32(0.05) * noise(rng, size, 120.0, octaves=3) + np.float32(0.045) * noise(rng, size, 4.0, octaves=2)
    )
    inside = rise(part.radius, OUTER + 0.8, OUTER - 0.8)
    metal = inside * rise(part.radius, BORE - 0.8, BORE + 0.8)
    belt = part.belt * _shadow(part)
    belt += (grey - belt) * inside
    part.grey, part.metal = belt, metal
    for hole in part.holes:
        _drill(part, hole)


def _shadow(part: Part) -> Field:
    """The part's soft shadow on the belt, thrown away from the main light, and the darkening right under its rim."""
    x, y = pixel_grid(part.size)
    reach = np.float32(11 * part.scale)
    dx = x - np.float32(part.centre[0]) + reach * np.float32(part.light[0])
    dy = y - np.float32(part.centre[1]) + reach * np.float32(part.light[1])
    distance = np.hypot(dx, dy) * np.float32(1 / part.scale)
    shadow: Field = 1 - np.float32(0.72) * rise(distance, OUTER + 16, OUTER - 12)
    return shadow


def _drill(part: Part, hole: Hole) -> None:
    """Cut one bolt hole: countersink that catches the light on its far side, a lit strip of bore wall, dark below."""
    reach = int(hole.radius * 1.5) + 3
    left, top = max(0, int(hole.x) - reach), max(0, int(hole.y) - reach)
    window = np.s_[top : int(hole.y) + reach, left : int(hole.x) + reach]
    x, y = pixel_grid(part.size)
    dx = (x[:, window[1]] - np.float32(hole.x)) / np.float32(hole.radius)
    dy = (y[window[0]] - np.float32(hole.y)) / np.float32(hole.radius)
    distance = np.hypot(dx, dy)
    facing = -(dx * part.light[0] + dy * part.light[1]) / np.maximum(distance, 0.05)
    edge = float(1.0 / hole.radius)
    sink = rise(distance, 1.22 + edge, 1.22 - edge)
    open_ = rise(distance, 1.0 + edge, 1.0 - edge)
    # The wall far from the lamp is lit down to a depth that fades towards the middle.
    wall = rise(distance, 0.55, 1.0) * np.clip(facing, 0, 1) ** 2 * 0.13
    grey = part.grey[window]
    grey += (0.21 + 0.22 * facing + 0.10 * facing * facing - grey) * sink
    grey += (0.010 + wall - grey) * open_
    part.metal[window] *= 1 - open_


def colour(part: Part) -> Radiance:
    """Radiance [H, W, 3]: steel is a touch cold, rubber a touch green, and a film on the part brings its own colour."""
    tones = _BELT + (_STEEL - _BELT) * part.metal[:, :, None]
    tones *= part.grey[:, :, None]
    if part.tint is not None:
        tones *= part.tint
    scene: Radiance = tones
    return scene
