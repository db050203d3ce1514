"""What goes wrong with a woven web. Each kind bends the cloth before it is woven or changes it after."""

from collections.abc import Callable

import numpy as np

from jobs.drawing.fields import Field, blob, noise, pixel_grid, rise, shifted, stroke, wandering_line
from jobs.drawing.twill import Cloth

Change = Callable[[np.random.Generator, Cloth], None]


def _inside(rng: np.random.Generator, cloth: Cloth, margin: float = 0.14) -> tuple[float, float]:
    x, y = rng.uniform(margin * cloth.size, (1 - margin) * cloth.size, 2)
    return float(x), float(y)


def _scale(cloth: Cloth) -> float:
    return cloth.size / 512


def _stain(cloth: Cloth, colour: tuple[float, float, float], amount: Field) -> None:
    cloth.stain = 1 + (np.array(colour, np.float32) - 1) * amount[:, :, None]


def broken_thread(rng: np.random.Generator, cloth: Cloth) -> None:
    """One or two neighbouring warp threads are missing over a stretch: only weft lies there, sunken and in shadow."""
    x, y = _inside(rng, cloth, 0.2)
    column, row = int(x), int(y)
    thread = int(cloth.warp[row, column])
    count = int(rng.integers(1, 3))
    length = rng.uniform(7, 20) * cloth.pitch_px
    across = cloth.warp - np.float32(thread)
    _, rows = pixel_grid(cloth.size)
    ragged = np.float32(2.0) * noise(rng, cloth.size, 6.0, octaves=1)
    gap = rise(np.abs(rows - np.float32(y)) + ragged, length / 2 + 1, length / 2 - 1)
    gap = gap * rise(across, -0.10, 0.12) * rise(across, count + 0.10, count - 0.12)
    # What the missing thread leaves: weft floats straight across, lower than the rest.
    floor = np.sqrt(np.clip(1 - ((cloth.weft % 1 - 0.5) / 0.5) ** 2, 0, 1)) * np.float32(rng.uniform(0.5, 0.68))
    cloth.shade += (floor - cloth.shade) * gap
    cloth.is_warp *= 1 - gap
    ends = np.zeros_like(gap)
    for sign in (-1, 1):
        heading = sign * np.pi / 2 + rng.normal(0, 0.5)
        line = wandering_line(
            rng,
            (x, y + sign * (length / 2 - 2)),
            heading + np.pi,
            rng.uniform(8, 20) * _scale(cloth),
            bend=1.4,
            jitter=0.05,
        )
        ends = np.maximum(ends, stroke(cloth.size, line, max(1.2, 2.4 * _scale(cloth)), taper=0.5))
    cloth.overlay = (ends * np.float32(0.85), np.array([0.09, 0.145, 0.24], np.float32))


def hole(rng: np.random.Generator, cloth: Cloth) -> None:
    """Torn through: the roller behind shows dark, cut threads fray into the gap."""
    centre = _inside(rng, cloth)
    radius = rng.uniform(9, 20) * _scale(cloth)
    outline = blob(rng, cloth.size, centre, radius, stretch=rng.uniform(1, 1.8), ragged=0.25)
    # Threads do not end together: the edge is ragged along the threads' own directions.
    outline = (
        outline
        + 0.10 * noise(rng, cloth.size, 9.0, 26.0, octaves=2)
        + 0.10 * noise(rng, cloth.size, 26.0, 9.0, octaves=2)
    )
    outline = outline.astype(np.float32)
    cloth.bare = rise(outline, 1.05, 0.85) * np.float32(0.97)
    cloth.shade *= 1 + np.float32(0.35) * rise(outline, 1.5, 1.15) * (1 - rise(outline, 1.15, 1.0))
    fibres = np.zeros_like(outline)
    for _ in range(rng.integers(5, 10)):
        angle = rng.uniform(0, 2 * np.pi)
        start = (centre[0] + radius * float(np.cos(angle)), centre[1] + radius * float(np.sin(angle)))
        line = wandering_line(
            rng,
            start,
            angle + np.pi + rng.normal(0, 0.6),
            radius * rng.uniform(0.4, 1.0),
            bend=1.2,
            jitter=0.06,
            steps=24,
        )
        fibres = np.maximum(fibres, stroke(cloth.size, line, max(1.0, 1.4 * _scale(cloth)), taper=0.6))
    cloth.overlay = (fibres * np.float32(0.75), np.array([0.22, 0.24, 0.26], np.float32))


def oil_spot(rng: np.random.Generator, cloth: Cloth) -> None:
    """Machine oil soaked in: darker and yellower, wicking along the threads."""
    radius = rng.uniform(14, 34) * _scale(cloth)
    outline = blob(rng, cloth.size, _inside(rng, cloth), radius, stretch=rng.uniform(1, 1.5), ragged=0.25)
    outline = (
        outline
        + 0.06 * noise(rng, cloth.size, 8.0, 30.0, octaves=2)
        + 0.06 * noise(rng, cloth.size, 30.0, 8.0, octaves=2)
    )
    soaked = rise(outline.astype(np.float32), 1.15, 0.6)
    _stain(cloth, (0.42, 0.34, 0.20), soaked * np.float32(rng.uniform(0.55, 0.9)))


def colour_bleed(rng: np.random.Generator, cloth: Cloth) -> None:
    """Dye that ran: the pale weft takes a wine-red cast in a long, soft streak down the web."""
    x, y = _inside(rng, cloth, 0.2)
    length, width = rng.uniform(40, 110) * _scale(cloth), rng.uniform(11, 24) * _scale(cloth)
    columns, rows = pixel_grid(cloth.size)
    drift = 0.10 * (rows - np.float32(y)) * np.float32(rng.normal(0, 1))
    outline = np.hypot(
        (columns - np.float32(x) + drift) / np.float32(width), (rows - np.float32(y)) / np.float32(length)
    )
    outline = outline + 0.12 * noise(rng, cloth.size, 14.0, 60.0, octaves=3)
    run = rise(outline.astype(np.float32), 1.2, 0.45) * (1 - np.float32(0.45) * cloth.is_warp)
    hue = (0.85, 0.42, 0.5) if rng.random() < 0.5 else (0.42, 0.55, 0.95)
    _stain(cloth, hue, run * np.float32(rng.uniform(0.65, 1.0)))


def foreign_fibre(rng: np.random.Generator, cloth: Cloth) -> None:
    """A stray coarse fibre on the web, with its own thin shadow."""
    line = wandering_line(
        rng,
        _inside(rng, cloth, 0.25),
        rng.uniform(0, 2 * np.pi),
        rng.uniform(50, 120) * _scale(cloth),
        bend=3.4,
        jitter=0.13,
    )
    fibre = stroke(cloth.size, line, max(1.4, rng.uniform(2.2, 3.6) * _scale(cloth)), taper=0.4)
    shadow = shifted(fibre, max(1, round(2 * _scale(cloth))), max(1, round(2 * _scale(cloth))))
    cloth.shade *= 1 - np.float32(0.5) * shadow
    pale, rusty = np.array([0.62, 0.58, 0.48], np.float32), np.array([0.36, 0.12, 0.07], np.float32)
    cloth.overlay = (fibre * np.float32(0.92), pale if rng.random() < 0.6 else rusty)


def pulled_thread(rng: np.random.Generator, cloth: Cloth) -> None:
    """Something caught the web: threads are drawn together towards one line and the weave is bent around it."""
    x, y = _inside(rng, cloth, 0.22)
    columns, rows = pixel_grid(cloth.size)
    reach, length = rng.uniform(16, 26) * _scale(cloth), rng.uniform(26, 60) * _scale(cloth)
    dx, dy = (columns - np.float32(x)) / np.float32(reach), (rows - np.float32(y)) / np.float32(length)
    grip = np.clip(1 - (dx * dx + dy * dy) / np.float32(4), 0, 1) ** 4
    cloth.warp += np.float32(rng.uniform(1.3, 2.0)) * dx * grip
    cloth.weft += np.float32(rng.choice([-1, 1]) * rng.uniform(1.0, 1.8)) * grip


BEFORE_WEAVING: dict[str, Change] = {"pulled_thread": pulled_thread}
AFTER_WEAVING: dict[str, Change] = {
    "broken_thread": broken_thread,
    "hole": hole,
    "oil_spot": oil_spot,
    "colour_bleed": colour_bleed,
    "foreign_fibre": foreign_fibre,
}
