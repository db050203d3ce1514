"""Exposure and white balance brought to a product's own good images, before anything is judged.

A lamp that ages or a shutter that is set anew scales all samples of a channel alike. Where a version asks for it, each
channel is scaled so that its mean, over the whole image, its border or a stated area, is that of the good images. It
is a choice and not the rule, for it has a price: a part that is discoloured as a whole looks good after the whole image
was scaled. A border or an area that shows no part is the better place to look at (docs/method.md, "Light").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from model.errors import FitError
from model.images.frames import Frame
from model.images.polygons import Polygon, as_given, fill

BORDER_SHARE = 1 / 16
"""Width of the border, of the image's shorter side."""
MOST_GAIN = 2.5
"""And its inverse: an image that would need more is too dark or too bright, and is to look so."""
_LEAST_MEAN = 1.0


def _as_given(value: Any) -> Any:
    if value in ("off", False):  # which YAML makes of off
        return None
    return as_given(value, "auto, off, image or border")


LightAt = Literal["image", "border"] | tuple[Polygon, ...]
"""Where light is looked at: the whole image, its border, or polygons in pixels of the original."""
ExposureOption = Annotated[Literal["auto"] | LightAt | None, BeforeValidator(_as_given)]
"""How it is asked for; None leaves light as it is; auto: by the whole image, where good images' scores follow it."""


class Exposure(BaseModel):
    """What a manifest says of it. means: of the good images' red, green and blue there, in gray levels of 255.

    width, height: of the good images, which polygons were drawn on; on an image of another size the place is the same
    in proportion. correlation: of held-out good images' scores with their brightness, which decided; none: it was asked
    for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    place: LightAt
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    means: tuple[float, float, float]
    correlation: float | None = None

    def describe(self) -> str:
        where = {"image": "by the whole image", "border": "by its border"}.get(str(self.place), "by the stated area")
        told = f"each image is brought to the good ones' light, {where}"
        if self.correlation is None:
            return told
        return (
            f"{told}, for good images' scores followed their brightness (rank correlation {self.correlation:+.2f}); a "
            "part that is discoloured as a whole looks good then: fit.exposure off leaves light as it is"
        )

    def scaled(self, frame: Frame, hidden: np.ndarray | None = None) -> Frame:
        """The frame in the good images' light. hidden: its pixels that are ignored, bool [H, W], and tell nothing."""
        found_3 = _means(frame, self._seen(frame, hidden))
        gains_3 = np.clip(np.asarray(self.means) / np.maximum(found_3, _LEAST_MEAN), 1 / MOST_GAIN, MOST_GAIN)
        table_3V = np.clip(np.rint(np.arange(256) * gains_3[:, None]), 0, 255).astype(np.uint8)
        pixels = np.stack([table_3V[channel][frame.pixels[..., channel]] for channel in range(3)], axis=-1)
        return Frame(pixels, frame.width, frame.height)

    def _seen(self, frame: Frame, hidden: np.ndarray | None) -> np.ndarray:
        seen = _pixels_at(self.place, *frame.pixels.shape[:2], self.height, self.width)
        return seen if hidden is None else seen & ~hidden


def learned(place: LightAt, good: Sequence[Frame], hidden: np.ndarray | None = None) -> Exposure:
    """From good images. hidden: see Exposure.scaled. Raises FitError where they show no light there."""
    height, width = good[0].height, good[0].width
    if not isinstance(place, str) and any((frame.height, frame.width) != (height, width) for frame in good):
        raise FitError(
            "fit.exposure: polygons are drawn on images of one size, and the good ones have several; name image or "
            "border, or fit on images of one size"
        )
    exposure = Exposure(place=place, width=width, height=height, means=(1.0, 1.0, 1.0))
    seen = [exposure._seen(frame, hidden) for frame in good]
    if not all(pixels.any() for pixels in seen):
        raise FitError(
            f"fit.exposure: no pixel of an image of {width} x {height} lies where its light is to be looked at; draw "
            "the area within the images, and outside of what is ignored"
        )
    means_3 = np.median([_means(frame, pixels) for frame, pixels in zip(good, seen, strict=True)], axis=0)
    if means_3.min() < _LEAST_MEAN:
        raise FitError(
            "fit.exposure: good images are black where their light is to be looked at (mean red, green and blue "
            f"{', '.join(f'{mean:.1f}' for mean in means_3)}); name another place, or leave it out"
        )
    return exposure.model_copy(update={"means": tuple(means_3.tolist())})


def _means(frame: Frame, seen: np.ndarray) -> np.ndarray:
    """Of a frame's red, green and blue, float64 [3]."""
    means: np.ndarray = frame.pixels[seen].mean(axis=0, dtype=np.float64)
    return means


@lru_cache(maxsize=64)
def _pixels_at(place: LightAt, height: int, width: int, full_height: int, full_width: int) -> np.ndarray:
    """Pixels of a frame of height x width that are looked at, bool."""
    seen = np.full((height, width), place == "image")
    if place == "border":
        rim = max(1, round(BORDER_SHARE * min(height, width)))
        seen[:rim] = seen[-rim:] = seen[:, :rim] = seen[:, -rim:] = True
    elif not isinstance(place, str):
        for polygon in place:
            fill(seen, tuple((x * width / full_width, y * height / full_height) for x, y in polygon))
    seen.setflags(write=False)
    return seen
