"""What goes wrong with a flange: each kind changes a part before it is shaded or after, and nothing else."""

from collections.abc import Callable

import numpy as np

from jobs.drawing.fields import Field, blob, noise, rise, shifted, stroke, wandering_line
from jobs.drawing.flange import CHAMFER, HOLE, OUTER, PITCH_CIRCLE, STEP, Part

Change = Callable[[np.random.Generator, Part], None]


def _on_face(rng: np.random.Generator, part: Part, margin: float = 12) -> tuple[float, float]:
    """A place on the turned face that is not in a bolt hole."""
    for _ in range(50):
        place = part.place(rng.uniform(STEP + margin, CHAMFER - margin), rng.uniform(0, 2 * np.pi))
        gaps = [np.hypot(place[0] - hole.x, place[1] - hole.y) - hole.radius for hole in part.holes]
        if min(gaps, default=np.inf) > margin * part.scale:
            break
    return place


def _mix_tint(part: Part, colour: tuple[float, float, float], amount: Field) -> None:
    tint = 1 + (np.array(colour, np.float32) - 1) * amount[:, :, None]
    part.tint = tint if part.tint is None else part.tint * tint


def scratch(rng: np.random.Generator, part: Part) -> None:
    """One to three gouges from handling: bright raw metal with a dark flank away from the light."""
    x, y = _on_face(rng, part)
    angle = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(1, 4)):
        length = rng.uniform(45, 130) * part.scale
        start = (x + rng.normal(0, 7) * part.scale, y + rng.normal(0, 7) * part.scale)
        line = wandering_line(rng, start, angle + rng.normal(0, 0.07), length, bend=0.4, jitter=0.01)
        line += np.asarray(start) - line.mean(axis=0)
        width = max(1.3, rng.uniform(1.5, 3.2) * part.scale)
        core = stroke(part.size, line, width) * part.metal
        core *= np.clip(0.9 + 0.3 * noise(rng, part.size, 9.0, octaves=2), 0.2, 1)
        away = (-int(np.sign(part.light[0])), -int(np.sign(part.light[1])))
        flank = np.maximum(shifted(core, *away) - core, 0) * part.metal
        part.grey += core * (np.float32(rng.uniform(0.34, 0.5)) - 0.25 * part.grey)
        part.grey *= 1 - np.float32(0.7) * flank


def dent(rng: np.random.Generator, part: Part) -> None:
    """A blow: a shallow bowl whose slopes face towards and away from the lamp, with a pressed-up lip."""
    radius = rng.uniform(9, 17) * part.scale
    outline = blob(rng, part.size, _on_face(rng, part, 22), radius, stretch=rng.uniform(1, 1.5), ragged=0.13)
    depth = -np.exp(-(outline**2) * 1.6) + 0.28 * np.exp(-(((outline - 1.25) / 0.28) ** 2))
    slope_y, slope_x = np.gradient(depth * np.float32(radius))
    lit = -(slope_x * part.light[0] + slope_y * part.light[1]).astype(np.float32)
    strength = np.float32(rng.uniform(0.7, 1.1))
    part.grey *= np.clip(1 + strength * 0.9 * lit * part.metal, 0.25, 2.2)
    part.grey += np.maximum(lit, 0) ** 2 * part.metal * strength * np.float32(0.12)
    part.grey *= 1 - np.float32(0.28) * rise(outline, 1.1, 0.2) * part.metal


def missing_hole(rng: np.random.Generator, part: Part) -> None:
    """The drill never came."""
    del part.holes[rng.integers(len(part.holes))]


def misplaced_hole(rng: np.random.Generator, part: Part) -> None:
    """One hole sits off its pitch circle or off its angle."""
    hole = part.holes[rng.integers(len(part.holes))]
    shift, angle = rng.uniform(9, 17) * part.scale, rng.uniform(0, 2 * np.pi)
    hole.x += shift * float(np.cos(angle))
    hole.y += shift * float(np.sin(angle))


def rim_chip(rng: np.random.Generator, part: Part) -> None:
    """A piece broken off the rim: belt shows where metal was, behind a rough, dull fracture."""
    place = part.place(OUTER + rng.uniform(-3, 5), rng.uniform(0, 2 * np.pi))
    outline = blob(rng, part.size, place, rng.uniform(13, 26) * part.scale, stretch=rng.uniform(1, 1.6), ragged=0.2)
    outline = outline + np.float32(0.07) * noise(rng, part.size, 9.0, octaves=3)
    gone = rise(outline, 0.86, 0.74) * part.metal
    fracture = rise(outline, 1.03, 0.95) * part.metal
    rough = 0.13 + 0.045 * noise(rng, part.size, 5.0, octaves=3) + 0.07 * part.cosine
    part.grey += (np.clip(rough, 0.03, 0.4) - part.grey) * fracture
    part.grey += (part.belt * 0.45 - part.grey) * gone
    part.metal = part.metal * (1 - gone)


def oil_stain(rng: np.random.Generator, part: Part) -> None:
    """A drop of old oil: amber, darker where it gathered at its edge, with a soft gleam."""
    radius = rng.uniform(16, 36) * part.scale
    outline = blob(rng, part.size, _on_face(rng, part, 16), radius, stretch=rng.uniform(1, 1.7), ragged=0.27)
    outline = outline + np.float32(0.03) * noise(rng, part.size, 14.0, octaves=2)
    film = rise(outline, 1.06, 0.88) * part.metal
    edge = np.exp(-(((outline - 0.9) / 0.1) ** 2)) * part.metal
    strength = np.float32(rng.uniform(0.45, 0.8))
    _mix_tint(part, (0.72, 0.5, 0.26), film * strength)
    part.grey *= 1 - strength * (np.float32(0.30) * film + np.float32(0.3) * edge)


def rust(rng: np.random.Generator, part: Part) -> None:
    """A patch of corrosion, thick in the middle and scattered in specks around."""
    radius = rng.uniform(18, 34) * part.scale
    outline = blob(rng, part.size, _on_face(rng, part, 14), radius, stretch=rng.uniform(1, 1.8), ragged=0.3)
    density = 1.15 - outline + np.float32(0.32) * noise(rng, part.size, 12.0, octaves=4)
    bloom = rise(density, 0.1, 0.7) * part.metal
    _mix_tint(part, (0.86, 0.47, 0.25), bloom * np.float32(rng.uniform(0.75, 0.95)))
    part.grey *= 1 - np.float32(0.42) * bloom * (1 + np.float32(0.2) * noise(rng, part.size, 4.0, octaves=2))


BEFORE_SHADING: dict[str, Change] = {"missing_hole": missing_hole, "misplaced_hole": misplaced_hole}
AFTER_SHADING: dict[str, Change] = {
    "scratch": scratch,
    "dent": dent,
    "rim_chip": rim_chip,
    "oil_stain": oil_stain,
    "rust": rust,
}

assert PITCH_CIRCLE + 1.22 * HOLE + 17 < CHAMFER + 4, "a misplaced hole must stay on the face"
