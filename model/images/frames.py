"""From the bytes of an image to pixels, in one way only.

Training, offline scoring, REST and the stream all call `read_frame`, so that one image gives one
score wherever it is scored. Resizing happens here, on uint8: a JPEG decoder itself leaves out the
frequencies that half, a quarter or an eighth of the image cannot hold, which takes a third of the
time of full decoding and resizing; Pillow's antialiased filter does the rest. A camera image of 20
megapixels becomes 196 kB before anything else holds on to it.

EXIF orientation is ignored on purpose: masks and regions are given in stored pixel coordinates,
and a camera that is bolted to a line has no orientation worth guessing.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from model.errors import EmptyImage, ImageTooLarge, UnreadableImage, UnsupportedFormat

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
RESIZE: Final = "jpeg-scaled-pillow-bilinear"
MAP_STRIDE: Final = 4
"""Pixels of a frame to a cell of its anomaly map, along each side."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
# What Pillow's decoders raise on hostile bytes, besides its own errors.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    AttributeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class ImageLimits:
    """Bounds that an image must keep, checked before its pixels are decoded."""

    max_bytes: int = 64 << 20
    max_pixels: int = 64_000_000


@dataclass(frozen=True, eq=False)
class Frame:
    """An image as the detector sees it.

    pixels: uint8 [S, S, 3], RGB, resized, or [H, W, 3] as it is where the product has tiles
    (model/images/tiles.py); width, height: the original size in pixels.
    """

    pixels: np.ndarray
    width: int
    height: int

    @property
    def size(self) -> int:
        """Side length S in pixels."""
        return int(self.pixels.shape[0])


def read_frame(data: bytes, size: int, limits: ImageLimits = ImageLimits(), *, tiled: bool = False) -> Frame:
    """Decode an image and resize it to size x size; keep its size where it is for a product with tiles.

    Raises a subclass of ImageRejected, and nothing else, whatever the bytes are.
    """
    if not data:
        raise EmptyImage("the image has no bytes; the producer sent an empty value")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data):,} bytes, the limit is {limits.max_bytes:,}; compress it or raise max_bytes"
        )
    with warnings.catch_warnings():
        # Pillow warns about odd metadata and about bombs; the first is harmless, the second is our limit's work.
        warnings.simplefilter("ignore")
        image = _open(data)
        width, height = image.size
        if width * height > limits.max_pixels:
            raise ImageTooLarge(
                f"the {image.format} header claims {width} x {height} pixels, the limit is {limits.max_pixels:,}; "
                "crop or bin the image at the camera, or raise max_pixels"
            )
        if width == 0 or height == 0:
            raise UnreadableImage(f"the {image.format} header claims {width} x {height} pixels; the file is corrupt")
        try:
            # Of JPEGs alone, and never below the size. The box is the image within what is decoded, in blocks of 8.
            scaled = None if tiled else image.draft(None, (size, size))
            image.load()
            rgb = _to_rgb(image)
            box = scaled[1] if scaled else (0, 0, *rgb.size)
            as_is = tiled or box == (0, 0, size, size)
            resized = rgb if as_is else rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
            pixels = np.asarray(resized, dtype=np.uint8)
        except _DECODER_ERRORS as error:
            raise UnreadableImage(
                f"the {image.format} image of {width} x {height} pixels and {len(data):,} bytes cannot be decoded: "
                f"{error}; it is truncated or corrupt"
            ) from error
    return Frame(pixels=pixels, width=width, height=height)


def normalised(
    frames: Sequence[Frame], mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Frames of one size -> float32 [B, 3, S, S], channels_last, on the device, (x / 255 - mean) / std."""
    side = frames[0].size
    # Pinned memory is what a GPU can read by itself, while the next operations are being launched.
    staged_BHWC = torch.empty(
        (len(frames), side, side, 3), dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda"
    )
    np.stack([frame.pixels for frame in frames], out=staged_BHWC.numpy())
    batch_BHWC = staged_BHWC.to(device, non_blocking=True)
    scale_C = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32, device=device)
    shift_C = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32, device=device)
    # Permuting NHWC memory gives a channels_last tensor without a copy.
    return (batch_BHWC.float() * scale_C + shift_C).permute(0, 3, 1, 2)


def _open(data: bytes) -> Image.Image:
    """Read the header alone."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnsupportedFormat(
            f"the first bytes {data[:8]!r} are not those of a readable {', '.join(FORMATS)} image; "
            "send one of these formats"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"the header claims too many pixels: {error}") from error
    except _DECODER_ERRORS as error:
        raise UnreadableImage(f"the image header cannot be read: {error}; the file is corrupt") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB. Transparency is laid on black; 16-bit gray loses its low byte."""
    if image.mode in _SIXTEEN_BIT_MODES or image.mode == "I":
        gray = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        return Image.fromarray((gray >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_float_to_gray(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def _float_to_gray(values: np.ndarray) -> np.ndarray:
    """Float TIFF -> uint8 [H, W]: 0..1 where the values say so, otherwise 0..255."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    scale = 255.0 if finite.max(initial=0.0) <= 1.0 else 1.0
    gray: np.ndarray = np.clip(finite * scale, 0, 255).astype(np.uint8)
    return gray
