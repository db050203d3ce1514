"""What lens and sensor add to a scene: uneven light, vignetting, softness, tone and noise."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jobs.drawing.fields import Field, pixel_grid

Radiance = NDArray[np.float32]  # [H, W, 3], linear, 1.0 = the sensor's full scale
Pixels = NDArray[np.uint8]  # [H, W, 3]

_LEVELS = 4096
_TONE = (255 * np.linspace(0, 1, _LEVELS) ** (1 / 2.1)).astype(np.float32)


@lru_cache(maxsize=4)
def _vignette(size: int) -> Field:
    x, y = pixel_grid(size)
    middle = size / 2
    distance2 = ((x - middle) ** 2 + (y - middle) ** 2) * (1 / middle**2)
    shade = 1 / (1 + 0.11 * distance2) ** 2
    return shade.astype(np.float32)


@lru_cache(maxsize=4)
def _grain(size: int) -> NDArray[np.float32]:
    """Sensor noise [1.5 size, 1.5 size, 3]: mostly common to the channels and slightly smooth, as after demosaicing."""
    side = size + size // 2
    rng = np.random.default_rng([7, size])
    grey = rng.standard_normal((side, side, 1), dtype=np.float32)
    colour = rng.standard_normal((side, side, 3), dtype=np.float32)
    grain = grey * 0.8 + colour * 0.6
    grain += 0.35 * np.roll(grain, 1, axis=0) + 0.35 * np.roll(grain, 1, axis=1)
    grain /= grain.std()
    return grain


def _soften(scene: Radiance, amount: float) -> None:
    """A three-tap blur in place along both axes: no lens resolves single pixels."""
    k = np.float32(amount)
    for view in (scene, scene.transpose(1, 0, 2)):
        middle = view[:-2] + view[2:]
        middle *= k
        view[1:-1] *= 1 - 2 * k
        view[1:-1] += middle


def expose(rng: np.random.Generator, scene: Radiance, *, noise_level: float = 2.1) -> Pixels:
    """Photograph a scene. Draws the same numbers from ``rng`` whatever the scene holds, so that twins share noise."""
    size = scene.shape[0]
    x, y = pixel_grid(size)
    slope_x, slope_y = rng.normal(0, 0.035, 2)
    lamp = np.float32(rng.normal(1.0, 0.03))
    light = lamp + np.float32(slope_x) * (x / size - 0.5) + np.float32(slope_y) * (y / size - 0.5)
    softness = rng.uniform(0.12, 0.2)
    top, left = rng.integers(0, size // 2, 2)
    scene *= (light * _vignette(size))[:, :, None]
    _soften(scene, softness)
    np.clip(scene, 0, 1, out=scene)
    scene *= _LEVELS - 1
    levels = np.take(_TONE, scene.astype(np.uint16))
    # Shot noise grows with the square root of the light; after a tone curve close to that it is the same everywhere.
    levels += _grain(size)[top : top + size, left : left + size] * np.float32(noise_level)
    np.clip(levels, 0, 255, out=levels)
    return levels.astype(np.uint8)
