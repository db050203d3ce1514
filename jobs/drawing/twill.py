"""A web of two-by-two twill under a line's camera: dark warp, pale weft, every thread a little different.

The weave repeats every four threads, so its shading is computed once on a fine tile and looked up per pixel. What makes
cloth look like cloth is added around it: threads of uneven thickness and dye, a web that is never quite straight, fuzz.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jobs.drawing.camera import Radiance
from jobs.drawing.fields import Field, noise, pixel_grid

PITCH = 9.2  # pixels per thread in a 512-pixel picture
_FINE = 32  # tile samples per thread
_SIDE = 4 * _FINE
_WARP = np.array([0.060, 0.098, 0.165], np.float32)
_WEFT = np.array([0.300, 0.315, 0.310], np.float32)
_BEHIND = np.array([0.012, 0.013, 0.015], np.float32)  # the dark roller seen where threads are missing


@dataclass
class Cloth:
    """One stretch of cloth; defects bend it before the threads are laid, or change what the threads look like after."""

    size: int
    warp: Field  # coordinate across the warp threads: thread number plus place within it
    weft: Field
    pitch_px: float
    warp_dye: NDArray[np.float32]  # per thread
    weft_dye: NDArray[np.float32]
    shade: Field
    is_warp: Field  # 1 where the warp lies on top
    stain: Radiance | None = None
    overlay: tuple[Field, NDArray[np.float32]] | None = None  # coverage and colour of something lying on the cloth
    bare: Field | None = None  # 1 where no thread is left


@lru_cache(maxsize=1)
def _tiles() -> tuple[Field, Field]:
    """Shading and warp-on-top over one repeat of four by four threads, [_SIDE, _SIDE] each."""
    axis = ((np.arange(_SIDE) + 0.5) / _FINE).astype(np.float32)
    u, v = axis[None, :], axis[:, None]
    i, j = np.floor(u), np.floor(v)
    fu, fv = u - i - 0.5, v - j - 0.5
    order = (i - j) % 4
    on_top = order < 2
    # Place along the float, -0.5 to 0.5: a thread dives under its neighbours at both ends.
    along_warp = (1 - order + fv + 0.5) / 2 - 0.5
    along_weft = (order - 2 + fu + 0.5) / 2 - 0.5
    across = np.where(on_top, fu, fv)
    along = np.where(on_top, along_warp, along_weft)
    round_ = np.sqrt(np.clip(1 - (across / 0.53) ** 2, 0, 1))
    dive = np.clip(1 - (np.abs(along) / 0.54) ** 3, 0, 1)
    tilt = np.where(on_top, 0.30 * -fu - 0.16 * along, 0.30 * -fv - 0.16 * along)
    twist = 0.07 * np.sin(2 * np.pi * (across * 1.3 + along * 5.0))
    shade = (0.16 + 0.84 * round_) * (0.30 + 0.70 * dive) * (1 + tilt + twist)
    return shade.astype(np.float32), on_top.astype(np.float32)


def lay_out(rng: np.random.Generator, size: int) -> Cloth:
    """Where every thread runs: a slight rotation, a slow drift of the web, and each thread's own dye."""
    scale = size / 512
    pitch = max(4.0, PITCH * scale)
    angle = rng.normal(0, 0.008)
    x, y = pixel_grid(size)
    offset = rng.uniform(8, 12, 2) * 4
    wave = noise(rng, size, 170.0, octaves=2)
    ripple = noise(rng, size, 150.0, octaves=2)
    c, s = np.float32(np.cos(angle) / pitch), np.float32(np.sin(angle) / pitch)
    warp = x * c + y * s + np.float32(offset[0]) + np.float32(0.16) * wave + _unevenness(rng, size, upright=True)
    weft = y * c - x * s + np.float32(offset[1]) + np.float32(0.20) * ripple + _unevenness(rng, size, upright=False)
    threads = int(size / pitch) + 120
    lot = rng.normal(1, 0.03)
    warp_dye = lot * np.clip(1 + 0.085 * rng.standard_normal(threads), 0.75, 1.3)
    weft_dye = lot * np.clip(1 + 0.045 * rng.standard_normal(threads), 0.85, 1.15)
    empty = np.empty((0, 0), np.float32)
    return Cloth(size, warp, weft, pitch, warp_dye.astype(np.float32), weft_dye.astype(np.float32), empty, empty)


def _unevenness(rng: np.random.Generator, size: int, *, upright: bool) -> Field:
    """Slubs: threads wander and swell along their own length."""
    long, short = 70.0, 11.0
    cells = (short, long) if upright else (long, short)
    wander: Field = np.float32(0.055) * noise(rng, size, *cells, octaves=2)
    return wander


def weave(cloth: Cloth) -> None:
    """Look the weave's shading up for every pixel."""
    index = (cloth.weft * _FINE).astype(np.int32) % _SIDE
    index *= _SIDE
    index += (cloth.warp * _FINE).astype(np.int32) % _SIDE
    shade, on_top = _tiles()
    cloth.shade, cloth.is_warp = np.take(shade, index), np.take(on_top, index)


def fuzz(rng: np.random.Generator, cloth: Cloth) -> None:
    """Loose fibres and the slow change of dye uptake over the web."""
    cloth.shade *= (
        1
        + np.float32(0.10) * noise(rng, cloth.size, 3.0, octaves=1)
        + np.float32(0.06) * noise(rng, cloth.size, 12.0, 30.0, octaves=2)
        + np.float32(0.035) * noise(rng, cloth.size, 240.0, octaves=2)
    )


def dye(cloth: Cloth) -> Radiance:
    """Radiance [H, W, 3] of the cloth with whatever lies on it."""
    warp = cloth.shade * cloth.is_warp * np.take(cloth.warp_dye, cloth.warp.astype(np.int32), mode="wrap")
    weft = cloth.shade * (1 - cloth.is_warp) * np.take(cloth.weft_dye, cloth.weft.astype(np.int32), mode="wrap")
    scene = np.empty((cloth.size, cloth.size, 3), np.float32)
    for channel in range(3):
        scene[:, :, channel] = warp * (_WARP[channel] * 1.9) + weft * _WEFT[channel]
    if cloth.stain is not None:
        scene *= cloth.stain
    if cloth.bare is not None:
        scene += (_BEHIND - scene) * cloth.bare[:, :, None]
    if cloth.overlay is not None:
        coverage, colour = cloth.overlay
        scene += (colour - scene) * coverage[:, :, None]
    return scene
