"""Places of a product's images that don't count: the belt beneath a part, a fixture, a clock in the picture.

What lies there is painted over with one flat colour before the network sees an image, in a fit as in scoring, so that
nothing there can move a score: neither at that place nor, through the network's wide view, beside it. The anomaly map
is 0 there, and no mask reaches into it.

A pixel is ignored where its centre lies within a polygon, or where the mask image is not 0. A cell of the map counts
where the pixel at its centre does. A pixel of a resized frame is painted over as soon as an ignored one has a share in
it.

An area belongs to images of one size. On any other it would lie somewhere else, so such an image is refused.
"""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import FitError, SizeDiffers
from model.images.cells import centre_pixels
from model.images.frames import MAP_STRIDE, Frame
from model.images.picture import DECODER_ERRORS
from model.images.polygons import Polygon, fill

PAINT = 114
"""The gray that is painted: ImageNet's mean, which tells a teacher least."""
_LEAST_JUDGED = 0.5
"""Part of what is left that must be seen on the map."""
_LOSSLESS = ("PNG", "BMP")


class IgnoredArea(BaseModel):
    """What a manifest says of it: polygons, or a mask as a PNG in base64, for images of width x height pixels.

    Raises ValueError (pydantic's) where nothing of an image would be ignored, or nothing of it would be left.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    polygons: tuple[Polygon, ...] = ()
    mask_png: str = ""

    @model_validator(mode="after")
    def _drawn(self) -> IgnoredArea:
        if bool(self.polygons) == bool(self.mask_png):
            raise ValueError("an ignored area is either polygons or a mask image")
        if not self.mask_HW.any():
            raise ValueError("no pixel is ignored: leave fit.ignore out, or draw the area anew")
        if self.mask_HW.all():
            raise ValueError("every pixel is ignored: leave some of the image to be judged")
        return self

    @property
    def mask_HW(self) -> np.ndarray:
        """True where a pixel is ignored, bool [height, width], not to be written to."""
        return _mask(self.width, self.height, self.polygons, self.mask_png)

    @property
    def digest(self) -> str:
        """sha256 of what is ignored, however it was drawn."""
        return hashlib.sha256(repr(self.mask_HW.shape).encode() + np.packbits(self.mask_HW).tobytes()).hexdigest()

    @property
    def share(self) -> float:
        """Of the image's pixels, 0 to 1."""
        return float(self.mask_HW.mean())

    def describe(self) -> str:
        drawn = f"{len(self.polygons)} polygons" if self.polygons else "a mask image"
        if len(self.polygons) == 1:
            drawn = "1 polygon"
        return f"{self.share:.1%} of an image of {self.width} x {self.height} pixels is ignored ({drawn})"

    def check(self, width: int, height: int) -> None:
        """Raises SizeDiffers for images that the area was not drawn for."""
        if (width, height) != (self.width, self.height):
            raise SizeDiffers(
                f"the image has {width} x {height} pixels, and the area that its product ignores (fit.ignore) was "
                f"drawn for {self.width} x {self.height}; send images of that size, or draw the area anew and fit again"
            )

    def cover(self, size: int, tiled: bool) -> Cover:
        """The area as it lies on the frames and maps of a model of that size.

        Raises FitError if most of what is left is narrower than a cell, and would be judged nowhere.
        """
        if tiled:
            hidden = self.mask_HW
            counted = self._cells(-(-self.height // MAP_STRIDE), -(-self.width // MAP_STRIDE))
        else:
            # With the filter that resizes images: whatever pixel of a frame an ignored one has a share in.
            shares = Image.fromarray(self.mask_HW.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
            hidden = np.asarray(shares) > 0
            counted = self._cells(size // MAP_STRIDE, size // MAP_STRIDE)
        left, judged = 1 - self.share, float(counted.mean())
        if judged < _LEAST_JUDGED * left:
            raise FitError(
                f"{left:.2%} of the image is left, and {judged:.2%} of the {counted.shape[1]} x {counted.shape[0]} "
                "cells of its map: what is left is too narrow to be judged; ignore less, or fit with tiles"
            )
        return Cover(self.mask_HW, hidden, counted)

    def _cells(self, rows: int, columns: int) -> np.ndarray:
        """True where a cell of a map counts, bool [rows, columns]."""
        at = np.ix_(centre_pixels(rows, self.height), centre_pixels(columns, self.width))
        counted: np.ndarray = ~self.mask_HW[at]
        return counted


@lru_cache(maxsize=8)
def _mask(width: int, height: int, polygons: tuple[Polygon, ...], mask_png: str) -> np.ndarray:
    """Drawn once for the several looks that a fit, a check and a report take."""
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        fill(mask, polygon)
    if mask_png:
        try:
            with Image.open(io.BytesIO(base64.b64decode(mask_png, validate=True)), formats=("PNG",)) as image:
                mask = np.array(image.convert("1"))
        except DECODER_ERRORS as error:
            raise ValueError(f"the mask is damaged: {error}") from error
        if mask.shape != (height, width):
            raise ValueError(f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, not {width} x {height}")
    mask.setflags(write=False)
    return mask


@dataclass(frozen=True, eq=False)
class Cover:
    """An ignored area laid over a model's frames and maps.

    mask_HW: pixels of the original image that are ignored. hidden: pixels of a frame that are painted over, [S, S], or
    [H, W] with tiles. counted: cells of an image's map that count, [S / 4, S / 4], or [ceil(H / 4), ceil(W / 4)]. bool.
    """

    mask_HW: np.ndarray
    hidden: np.ndarray
    counted: np.ndarray

    @property
    def bytes(self) -> int:
        return self.mask_HW.nbytes + self.hidden.nbytes + self.counted.nbytes

    def painted(self, frame: Frame) -> Frame:
        """The frame with the area painted over. Raises ValueError where it is of an image of another size."""
        height, width = self.mask_HW.shape
        if (frame.width, frame.height) != (width, height):
            raise ValueError(
                f"a frame of an image of {frame.width} x {frame.height} pixels, and the ignored area is for {width} x "
                f"{height}: Manifest.read refuses such images"
            )
        pixels = frame.pixels.copy()
        pixels[self.hidden] = PAINT
        return Frame(pixels, frame.width, frame.height)

    def counted_values(self, map_HW: np.ndarray) -> np.ndarray:
        """An image's map without the ignored cells, [N]."""
        values: np.ndarray = map_HW[..., self.counted]
        return values

    def cut_out(self, map_HW: np.ndarray) -> np.ndarray:
        """An image's map, or maps, with the ignored cells at 0."""
        return np.where(self.counted, map_HW, np.zeros((), map_HW.dtype))


def drawn_area(polygons: Sequence[Polygon], width: int, height: int) -> IgnoredArea:
    """Polygons on images of that size. Raises FitError, which says what is wrong with which polygon."""
    for number, polygon in enumerate(polygons, 1):
        for x, y in polygon:
            if not (0 <= x <= width and 0 <= y <= height):
                raise FitError(
                    f"polygon {number} has a corner at ({x:g}, {y:g}), outside of the images, which have {width} x "
                    f"{height} pixels; draw it within them"
                )
        inside = np.zeros((height, width), dtype=bool)
        fill(inside, polygon)
        if not inside.any():
            raise FitError(f"polygon {number} encloses no pixel; its corners lie on one line or too close together")
    return _checked(width, height, polygons=tuple(polygons))


def masked_area(data: bytes, width: int, height: int) -> IgnoredArea:
    """An encoded mask image, not 0 where it is ignored, for images of that size. Raises FitError."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            if image.format not in _LOSSLESS:
                raise FitError(
                    f"the mask is a {image.format} image; save it as {' or '.join(_LOSSLESS)}, which keep each pixel "
                    "as it was drawn"
                )
            if image.size != (width, height):
                raise FitError(
                    f"the mask has {image.width} x {image.height} pixels and the images have {width} x {height}; draw "
                    "it on one of the images, at its full size"
                )
            if (pages := getattr(image, "n_frames", 1)) > 1:
                raise FitError(f"the mask has {pages} pages; save one alone")
            if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
                raise FitError("the mask is partly transparent; save it in black, and white where it is ignored")
            values = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except UnidentifiedImageError as error:
        raise FitError(f"the mask can't be read: its {len(data):,} bytes are no image") from error
    except (*DECODER_ERRORS, Image.DecompressionBombError) as error:
        raise FitError(f"the mask can't be read, its file is damaged: {error}") from error
    ignored = values.astype(bool) if values.ndim == 2 else values.any(axis=2)
    buffer = io.BytesIO()
    Image.fromarray(ignored).save(buffer, "PNG", optimize=True)
    return _checked(width, height, mask_png=base64.b64encode(buffer.getvalue()).decode("ascii"))


def _checked(width: int, height: int, *, polygons: tuple[Polygon, ...] = (), mask_png: str = "") -> IgnoredArea:
    try:
        return IgnoredArea(width=width, height=height, polygons=polygons, mask_png=mask_png)
    except ValidationError as error:
        raise FitError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
