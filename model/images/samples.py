"""What the samples of an image mean: from whatever depth to 8 bits of red, green and blue.

Samples are scaled from their depth to 8 bits and rounded, so a scene that is recorded at 8, 12 and 16 bits gives the
same pixels. How many bits a sample has is what the file says (BitsPerSample, sBIT) or the product
(`Reading.bit_depth`). It is never read off the picture's own values: a dark picture would become a bright one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from PIL import Image

from model.errors import DepthMismatch, UnreadableImage, UnsupportedEncoding
from model.images.encoding import name_of, png_header, png_significant_bits
from model.images.picture import SEND_PLAIN
from model.images.reading import Reading

Kind = Literal["unsigned", "signed", "float"]
CLEARLY_16_BITS = 1 << 14
"""A 16-bit image whose largest value is smaller may be one of 10, 12 or 14 bits that does not say so."""
_WIDE_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _PLANES, _EXTRA = 258, 262, 339, 284, 338
_STRIPS, _ROWS, _COMPRESSION = 273, 278, 259
_ORIENTATION = 274
_OTHER_BYTE = {";16L": ";16B", ";16B": ";16L", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


@dataclass(frozen=True)
class Layout:
    """How samples are stored. white_is_zero: of TIFFs. premultiplied: colours are laid on black already."""

    bits: int
    kind: Kind = "unsigned"
    planes: bool = False
    white_is_zero: bool = False
    premultiplied: bool = False


def layout_of(image: Image.Image, data: bytes) -> Layout:
    """Of an image whose header has been read. Raises UnsupportedEncoding."""
    if image.format == "TIFF":
        return _tiff_layout(image, data)
    if image.format == "PNG":
        bits, colour = png_header(data)
        return Layout(8 if colour == 3 else bits)  # a palette's colours have 8 bits
    if image.format == "BMP" and data[28:30] == b"\x10\0":
        return Layout(5)
    return Layout(1 if image.mode == "1" else 8)


def check_depth(layout: Layout, reading: Reading, data: bytes) -> None:
    """Refuse, before anything is decoded, what can't be what the product's images are.

    Raises:
        UnsupportedEncoding, DepthMismatch.
    """
    if layout.bits < 8:
        raise UnsupportedEncoding(
            f"an image of fewer than 8 bits a sample ({layout.bits}) has lost the gray values that a verdict needs; "
            f"{SEND_PLAIN}"
        )
    if layout.kind != "unsigned" or layout.bits > 16:
        if reading.value_range is None:
            raise UnsupportedEncoding(
                f"{name_of(data)}: nobody has said which values are black and white; set fit.value_range to [black, "
                f"white] and fit the product again, or {SEND_PLAIN}"
            )
        return
    if reading.value_range is not None:
        raise DepthMismatch(
            f"the product's images have float or 32-bit samples (fit.value_range), this is one of {layout.bits} bits"
        )
    if reading.bit_depth is not None and layout.bits not in (_container(reading.bit_depth), reading.bit_depth):
        raise DepthMismatch(
            f"the product's images have {reading.bit_depth} bits a sample (fit.bit_depth), this is one of "
            f"{layout.bits}: set the camera's pixel format right, or fit the product again on such images"
        )


def to_rgb(
    image: Image.Image,
    data: bytes,
    layout: Layout,
    reading: Reading,
    again: Callable[[], Image.Image],
    *,
    cut: bool = False,
) -> Image.Image:
    """A loaded image -> 8-bit RGB.

    again: the same picture, opened and not loaded, for samples of which Pillow gives only one byte at a time. cut: 16
    bits lose their low byte instead of being rounded, as versions of before were calibrated.

    Raises:
        UnsupportedEncoding, DepthMismatch, UnreadableImage.
    """
    if layout.kind != "unsigned" or layout.bits > 16:
        return Image.fromarray(_ranged(image, layout, reading)).convert("RGB")
    if layout.bits > 8:
        return _flat(_narrowed(image, data, layout, reading, again, cut), layout)
    return _flat(image, layout)


def _container(depth: int) -> int:
    return 8 if depth == 8 else 16


def _tiff_layout(image: Image.Image, data: bytes) -> Layout:
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = set(_tuple(tags.get(_BITS, 1)))
    kinds = set(_tuple(tags.get(_SAMPLE_FORMAT, 1))) - {4}
    if len(bits) > 1 or len(kinds) > 1 or not kinds <= {1, 2, 3}:
        raise UnsupportedEncoding(f"this is {name_of(data) or 'a TIFF of mixed samples'}; {SEND_PLAIN}")
    photometric = int(tags.get(_PHOTOMETRIC, 0))  # as Pillow takes it
    if photometric >= 8:
        raise UnsupportedEncoding(f"this is {name_of(data) or 'a TIFF of unusual colours'}; {SEND_PLAIN}")
    kind: Kind = {1: "unsigned", 2: "signed", 3: "float"}[(kinds or {1}).pop()]  # type: ignore[assignment]
    return Layout(
        bits=8 if photometric == 3 else bits.pop(),
        kind=kind,
        planes=int(tags.get(_PLANES, 1)) == 2 and len(image.getbands()) > 1,
        white_is_zero=photometric == 0,
        premultiplied=1 in _tuple(tags.get(_EXTRA, ())),
    )


def _tuple(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),)  # type: ignore[call-overload]


def _ranged(image: Image.Image, layout: Layout, reading: Reading) -> np.ndarray:
    """Float, signed and 32-bit gray -> uint8 [H, W], by the range that the product states."""
    values_HW = np.asarray(image)
    if layout.kind == "unsigned":  # Pillow keeps them in signed integers
        values_HW = values_HW.view(np.uint32)
    if layout.kind == "signed" and layout.bits == 8:
        values_HW = values_HW.view(np.int8)
    if values_HW.ndim != 2 or reading.value_range is None:
        raise UnsupportedEncoding(f"float, signed and 32-bit samples can be read of gray images alone; {SEND_PLAIN}")
    values_HW = values_HW.astype(np.float64)
    if not np.isfinite(values_HW).all():
        raise UnreadableImage(f"{int((~np.isfinite(values_HW)).sum())} samples are not a number, or infinite")
    black, white = reading.value_range
    least, most = values_HW.min(), values_HW.max()
    if least < black or most > white:
        raise DepthMismatch(
            f"samples from {least:.6g} to {most:.6g} lie outside of the product's fit.value_range "
            f"[{black:g}, {white:g}]: state the range that the camera fills, and fit the product again"
        )
    share_HW = (values_HW - black) / (white - black)
    gray: np.ndarray = np.rint((1 - share_HW if layout.white_is_zero else share_HW) * 255).astype(np.uint8)
    return gray


def _narrowed(
    image: Image.Image,
    data: bytes,
    layout: Layout,
    reading: Reading,
    again: Callable[[], Image.Image],
    cut: bool,
) -> Image.Image:
    """9 to 16 bits -> 8 bits, in the image's own mode or in gray."""
    samples = _Wide(image, data, layout, again)
    depth = layout.bits if layout.bits < 16 else reading.bit_depth
    stated = png_significant_bits(data) if image.format == "PNG" else None
    if stated is not None:
        depth = _png_depth(samples, stated, reading)
    if depth is None and samples.clear:
        depth = 16
    if depth is None:
        raise DepthMismatch(
            f"a 16-bit image whose values end at {samples.largest} may be one of 10, 12 or 14 bits, and neither the "
            "file nor the product says: set fit.bit_depth to what the camera fills, or to 16 if it is that dark, and "
            "fit the product again"
        )
    if depth == 16 and (cut or not samples.whole):
        return samples.image(samples.high)
    if samples.largest >= 1 << depth:
        raise DepthMismatch(
            f"values up to {samples.largest} do not fit into {depth} bits a sample: set the camera's pixel format "
            "right, or fit the product again with another fit.bit_depth (16 where the bits are the highest ones)"
        )
    most = (1 << depth) - 1
    values = most - samples.values if layout.white_is_zero else samples.values
    return samples.image(((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8))


def _png_depth(samples: _Wide, stated: int, reading: Reading) -> int:
    """From sBIT. Encoders shall scale samples up to 16 bits (PNG, section 11.3.2.3), and some leave them as they were:
    samples that are scaled can be told by their low bits.
    """
    if reading.bit_depth not in (None, stated):
        raise DepthMismatch(
            f"the product's images have {reading.bit_depth} bits a sample (fit.bit_depth), this PNG states {stated} "
            "(sBIT)"
        )
    if stated == 16:
        return 16
    most = (1 << stated) - 1
    colours = samples.colours
    scaled = np.rint((colours >> (16 - stated)) * (65535 / most))
    if not (colours & (0xFFFF >> stated)).any() or np.abs(scaled - colours).max() <= 1:
        return 16
    if stated < 8 or samples.largest > most:
        raise UnsupportedEncoding(
            f"this PNG states {stated} significant bits (sBIT), and its values up to {samples.largest} are neither of "
            f"that depth nor scaled from it; {SEND_PLAIN}"
        )
    return stated


class _Wide:
    """Samples of 9 to 16 bits. Of colours Pillow gives the high bytes; the low ones are fetched where they count."""

    def __init__(self, image: Image.Image, data: bytes, layout: Layout, again: Callable[[], Image.Image]) -> None:
        self._layout, self._again = layout, again
        self._mode = "RGB" if layout.planes else "L" if image.mode in _WIDE_MODES else image.mode
        self._gray = self._mode == "L" or layout.planes
        if self._gray:
            self.values = _planes(image, data) if layout.planes else np.asarray(image).astype(np.uint16)
        else:
            self._high = np.asarray(image)

    @property
    def whole(self) -> bool:
        """Whether all of their bits can be had."""
        return self._mode != "CMYK" and not (self._layout.premultiplied and not self._gray)

    @property
    def high(self) -> np.ndarray:
        """The eight highest of 16 bits, uint8."""
        if not self._gray:
            return self._high
        values = 65535 - self.values if self._layout.white_is_zero else self.values
        high: np.ndarray = (values >> 8).astype(np.uint8)
        return high

    @cached_property
    def values(self) -> np.ndarray:
        """All bits, uint16 [H, W] or [H, W, bands]."""
        if not self.whole:
            raise UnsupportedEncoding(f"fewer than 16 bits a sample are read of gray, RGB and RGBA alone; {SEND_PLAIN}")
        other: Any = self._again()
        gray_alpha = str(_raw(other.tile[0].args)) == "LA;16B"
        other.tile = [tile._replace(args=_with_low_bytes(tile.args)) for tile in other.tile]
        other.load()
        low = np.asarray(other)[..., [1, 1, 1, 3]] if gray_alpha else np.asarray(other)
        values: np.ndarray = (self._high.astype(np.uint16) << 8) | low
        return values

    @property
    def colours(self) -> np.ndarray:
        """The values without alpha, which has a range of its own."""
        return self.values[..., :3] if self.values.ndim == 3 else self.values

    @property
    def largest(self) -> int:
        return int(self.colours.max())

    @property
    def clear(self) -> bool:
        """Whether values reach so far that there must be 16 bits."""
        if self._mode == "CMYK":
            return True
        if self._gray:
            return self.largest >= CLEARLY_16_BITS
        return int(self._high[..., :3].max()) >= CLEARLY_16_BITS >> 8

    def image(self, narrow: np.ndarray) -> Image.Image:
        return Image.fromarray(narrow, self._mode) if self._mode == "CMYK" else Image.fromarray(narrow)


def _raw(args: object) -> object:
    return args[0] if isinstance(args, tuple) else args


def _with_low_bytes(args: object) -> object:
    """A tile's decoder arguments, with a raw mode that takes the other byte of each sample."""
    raw = str(_raw(args))
    other = _OTHER_BYTE.get(raw[-4:])
    # Gray with alpha has no such mode; read as four bytes, none is lost.
    changed = "RGBA" if raw == "LA;16B" else raw[:-4] + other if other else None
    if changed is None:
        raise UnsupportedEncoding(f"16-bit samples in Pillow's raw mode {raw} can't be read in full; {SEND_PLAIN}")
    return (changed, *args[1:]) if isinstance(args, tuple) else changed


def _planes(image: Image.Image, data: bytes) -> np.ndarray:
    """A TIFF of 16 bits in planes -> uint16 [H, W, 3]; Pillow would read every plane as one of 8 bits."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, height = int(tags[256]), int(tags[257])
    rows = int(tags.get(_ROWS, height))
    if int(tags.get(_COMPRESSION, 1)) != 1 or _STRIPS not in tags or int(tags.get(_ORIENTATION, 1)) != 1:
        raise UnsupportedEncoding(
            f"this is {name_of(data)}, compressed, tiled or turned, which can't be read here; {SEND_PLAIN}"
        )
    strips = -(-height // rows)
    offsets = _tuple(tags[_STRIPS])[: 3 * strips]
    order = ">u2" if tags.prefix == b"MM" else "<u2"
    planes = []
    for plane in range(3):
        parts = []
        for strip, offset in enumerate(offsets[plane * strips : (plane + 1) * strips]):
            count = width * min(rows, height - strip * rows)
            parts.append(np.frombuffer(data, dtype=order, count=count, offset=offset))
        planes.append(np.concatenate(parts).reshape(height, width))
    return np.stack(planes, axis=-1).astype(np.uint16)


def _flat(image: Image.Image, layout: Layout) -> Image.Image:
    """Transparency laid on black. Alpha that is the same everywhere is unused, and a colour key is a colour."""
    transparent = image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info)
    if not transparent:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    least, most = alpha.getextrema()
    if layout.premultiplied and most == 0:
        raise UnsupportedEncoding("colours multiplied by an alpha that is 0 everywhere: nothing is left of the picture")
    if least == most and not layout.premultiplied:
        return rgba.convert("RGB")
    flat = Image.new("RGB", rgba.size)
    flat.paste(rgba, mask=alpha)
    return flat
