"""From the bytes of one row to pictures a person looks at: photo, heat layer, outlined masks.

A report must come out even where one of its pictures is broken: what cannot be read is left out, named in ``trouble``.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from jobs.report.colours import HEAT_AT_THRESHOLD, heat_colours
from jobs.report.rows import InspectedImage
from model import ImageRejected, Reading, read_frame

Colour = tuple[int, int, int]
Mask = NDArray[np.bool_]
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageRejected)
_Read = TypeVar("_Read")
_STRIPES = 8  # pixels from one to the next


@dataclass(frozen=True)
class Pictures:
    photo: Image.Image  # RGB
    size: tuple[int, int]  # of the original, (width, height)
    mask: Mask | None
    heat: NDArray[np.float32] | None  # in multiples of the threshold
    truth: Mask | None
    ignored: Mask | None
    trouble: tuple[str, ...]


def read_pictures(row: InspectedImage, side: int) -> Pictures:
    """Decode a row's pictures, each scaled down to fit into ``side`` x ``side``."""
    trouble: list[str] = []
    blank = Image.new("RGB", (side, side), (128, 128, 128))
    photo = _attempt("image", row.image, lambda data: _photo(data, side, row.reading), trouble) or blank
    fitted = _fit(photo.size, side)
    mask = _attempt("mask", row.mask_png, lambda data: _mask(data, fitted), trouble)
    heat = _attempt("heat map", row.heat_png, lambda data: _heat(data, fitted), trouble)
    truth = _attempt("truth mask", row.truth_mask_png, lambda data: _mask(data, fitted), trouble)
    ignored = _attempt("ignored area", row.ignored_png, lambda data: _mask(data, fitted), trouble)
    small = photo.resize(fitted, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return Pictures(small, photo.size, mask, heat, truth, ignored, tuple(trouble))


def _attempt(name: str, data: bytes | None, read: Callable[[bytes], _Read], trouble: list[str]) -> _Read | None:
    if not data:
        if name == "image":
            trouble.append("image missing")
        return None
    try:
        return read(data)
    except _UNREADABLE:
        trouble.append(f"{name} unreadable")
        return None


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _photo(data: bytes, side: int, reading: Reading) -> Image.Image:
    """As the detector saw it: a picture of 12 bits is neither black nor white."""
    return Image.fromarray(read_frame(data, side, tiled=True, reading=reading).pixels)


def _mask(data: bytes, size: tuple[int, int]) -> Mask:
    with Image.open(io.BytesIO(data)) as opened:
        grey = opened.convert("L")
    # A quarter of a pixel is enough: a scratch must not vanish from a thumbnail.
    return np.asarray(grey.resize(size, Image.Resampling.BOX)) >= 64


def read_mask(data: bytes, side: int) -> Mask:
    """A mask's PNG, scaled down to fit into ``side`` x ``side``."""
    with Image.open(io.BytesIO(data)) as opened:
        size = opened.size
    return _mask(data, _fit(size, side))


def _heat(data: bytes, size: tuple[int, int]) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(data)) as opened:
        values = np.asarray(opened)
    if values.dtype.itemsize < 2 or values.ndim != 2:
        raise ValueError(f"a heat map is a 16-bit grayscale PNG, not {values.dtype} {values.shape}")
    multiples = Image.fromarray(values.astype(np.float32) / np.float32(HEAT_AT_THRESHOLD))
    return np.asarray(multiples.resize(size, Image.Resampling.BOX), dtype=np.float32)


def heat_layer(heat: NDArray[np.float32]) -> Image.Image:
    """The heat map as a transparent RGBA layer."""
    return Image.fromarray(heat_colours(heat))


def outline(mask: Mask, width: int = 2) -> Mask:
    """The rim around a mask, ``width`` pixels wide and outside of it, so that a thin defect stays visible inside."""
    if not mask.any():
        return mask
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * width + 1))
    return (np.asarray(grown) > 0) & ~mask


def mask_layer(mask: Mask, colour: Colour) -> Image.Image:
    """A palette picture of a mask: faint inside, a bright outline with a dark edge; its alphas are in ``info``."""
    rim = outline(mask, 1)
    halo = outline(mask | rim, 1)
    codes = mask.astype(np.uint8) + 2 * rim.astype(np.uint8) + 3 * halo.astype(np.uint8)
    layer = Image.fromarray(codes)
    layer.putpalette([0, 0, 0, *colour, *colour, 8, 12, 20])
    layer.info["transparency"] = bytes([0, 40, 255, 150])
    return layer


def hatched_layer(ignored: Mask) -> Image.Image:
    """A palette picture of what doesn't count: dimmed, with light stripes and a light rim; alphas are in ``info``."""
    y, x = np.indices(ignored.shape)
    stripe = ignored & ((x + y) % _STRIPES < _STRIPES // 4)
    layer = Image.fromarray(ignored.astype(np.uint8) + (stripe | (ignored & outline(~ignored, 1))))
    layer.putpalette([0, 0, 0, 8, 12, 20, 225, 230, 236])
    layer.info["transparency"] = bytes([0, 110, 170])
    return layer


def hatch(photo: Image.Image, ignored: Mask | None) -> Image.Image:
    """The photo under the hatching of what doesn't count."""
    if ignored is None or not ignored.any():
        return photo
    return Image.alpha_composite(photo.convert("RGBA"), hatched_layer(ignored).convert("RGBA")).convert("RGB")


def blend_heat(photo: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """The photo, greyed a little, under its heat map."""
    base = Image.blend(photo, photo.convert("L").convert("RGB"), 0.7).convert("RGBA")
    return Image.alpha_composite(base, heat_layer(heat)).convert("RGB")


def data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    """The picture as a ``data:`` URI; ``kind`` is JPEG, PNG or WEBP."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
