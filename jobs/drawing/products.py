"""From (product, seed, kind) to a picture and the mask of what is wrong in it.

A defective picture and its good twin take every random number of the product and of the camera from the same stream,
and the defect takes its own from another. The mask is what then differs between the two: nobody outlined it by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.drawing import flange, flange_defects, twill, twill_defects
from jobs.drawing.camera import Pixels, Radiance, expose

DIFFERS_BY = 8  # grey levels of 255 in any channel; about four times the sensor's noise, which twins share anyway
_CLOSE_PX = 5  # gaps this small between differing pixels belong to the defect (a stain on cloth skips the dark threads)


@dataclass(frozen=True)
class Drawn:
    image: Pixels  # [H, W, 3]
    mask: NDArray[np.bool_]  # [H, W], all False on a good image


def _flange_scene(rng: np.random.Generator, defect_rng: np.random.Generator, kind: str | None, size: int) -> Radiance:
    part = flange.set_up(rng, size)
    if kind in flange_defects.BEFORE_SHADING:
        flange_defects.BEFORE_SHADING[kind](defect_rng, part)
    flange.shade(rng, part)
    if kind in flange_defects.AFTER_SHADING:
        flange_defects.AFTER_SHADING[kind](defect_rng, part)
    return flange.colour(part)


def _twill_scene(rng: np.random.Generator, defect_rng: np.random.Generator, kind: str | None, size: int) -> Radiance:
    cloth = twill.lay_out(rng, size)
    if kind in twill_defects.BEFORE_WEAVING:
        twill_defects.BEFORE_WEAVING[kind](defect_rng, cloth)
    twill.weave(cloth)
    if kind in twill_defects.AFTER_WEAVING:
        twill_defects.AFTER_WEAVING[kind](defect_rng, cloth)
    twill.fuzz(rng, cloth)
    return twill.dye(cloth)


_SCENES: dict[str, Callable[[np.random.Generator, np.random.Generator, str | None, int], Radiance]] = {
    "flange": _flange_scene,
    "twill": _twill_scene,
}
PRODUCTS: tuple[str, ...] = tuple(_SCENES)
KINDS: dict[str, tuple[str, ...]] = {
    "flange": tuple(flange_defects.AFTER_SHADING | flange_defects.BEFORE_SHADING),
    "twill": tuple(twill_defects.AFTER_WEAVING | twill_defects.BEFORE_WEAVING),
}


def background(product: str, size: int = 512) -> NDArray[np.bool_] | None:
    """What of a picture is no part of the product, [H, W]; None where the product fills it."""
    return flange.background(size) if product == "flange" else None


def draw(product: str, seed: int, kind: str | None, size: int = 512) -> Drawn:
    """Draw one image. ``kind`` is one of ``KINDS[product]``, or None for a good product."""
    if product not in _SCENES:
        raise ValueError(f"no drawn product {product!r}; there are {', '.join(PRODUCTS)}")
    if kind is None:
        return Drawn(_photograph(product, seed, None, size), np.zeros((size, size), np.bool_))
    if kind not in KINDS[product]:
        raise ValueError(f"{product} has no defect {kind!r}; there are {', '.join(KINDS[product])}")
    image = _photograph(product, seed, kind, size)
    return Drawn(image, _difference(image, _photograph(product, seed, None, size)))


def _photograph(product: str, seed: int, kind: str | None, size: int) -> Pixels:
    which = PRODUCTS.index(product)
    rng = np.random.default_rng([seed, which, 0])
    defect_rng = np.random.default_rng([seed, which, 1])
    scene = _SCENES[product](rng, defect_rng, kind, size)
    return expose(rng, scene)


def _difference(image: Pixels, twin: Pixels) -> NDArray[np.bool_]:
    """Where two twins differ, small gaps closed: no pixel outside the mask differs by more than ``DIFFERS_BY``."""
    apart = np.maximum(image, twin) - np.minimum(image, twin)
    differs: NDArray[np.bool_] = apart.max(axis=2) > DIFFERS_BY
    return differs | ~_grown(~_grown(differs))


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask dilated by a square of ``_CLOSE_PX``, one axis after the other."""
    for axis in (0, 1):
        grown = mask.copy()
        along, source = np.moveaxis(grown, axis, 0), np.moveaxis(mask, axis, 0)
        for step in range(1, _CLOSE_PX // 2 + 1):
            along[step:] |= source[:-step]
            along[:-step] |= source[step:]
        mask = grown
    return mask
