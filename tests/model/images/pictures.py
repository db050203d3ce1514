"""One picture in many encodings, as cameras and tools write it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Literal

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms


def twill(seed: int, side: int = 256) -> np.ndarray:
    """A good part in gray, 0..1 [side, side]: fine diagonal threads, and a dark ring that lies a little elsewhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    shift_x, shift_y = rng.uniform(-2, 2, 2)
    gray = 0.5 + 0.12 * np.sin((x + y + shift_x) * np.pi / 6) + 0.08 * np.sin((x - y + shift_y) * np.pi / 10)
    radius = np.hypot(x - side / 2 - shift_x, y - side / 2 - shift_y)
    gray = np.where(np.abs(radius - 0.3 * side) < 0.03 * side, 0.4 * gray, gray)
    gray = gray * rng.uniform(0.96, 1.04) + rng.normal(0, 0.01, gray.shape)
    return np.clip(gray, 0, 1)


def levels(gray: np.ndarray, bits: int) -> np.ndarray:
    """Gray of 0..1 as integers of so many bits."""
    return np.rint(gray * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def three(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def pillow(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def tiff(*pages: np.ndarray, byteorder: Literal["<", ">"] = "<", bigtiff: bool = False, **options: object) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=byteorder, bigtiff=bigtiff) as writer:
        for page in pages:
            writer.write(page, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def png(values: np.ndarray, significant_bits: tuple[int, ...] = ()) -> bytes:
    """A PNG of the array's own depth, with sBIT where bits are given."""
    data = imagecodecs.png_encode(values)
    if significant_bits:
        body = b"sBIT" + bytes(significant_bits)
        chunk = struct.pack(">I", len(significant_bits)) + body + struct.pack(">I", zlib.crc32(body))
        data = data[:33] + chunk + data[33:]  # behind IHDR
    return bytes(data)


def bmp(rows: bytes, *, side: int, bits: int, compression: int = 0, header: int = 40, masks: bytes = b"") -> bytes:
    """A BMP by hand: rows from the bottom up, padded to 4 bytes already."""
    info = struct.pack("<IiiHHIIiiII", header, side, side, 1, bits, compression, len(rows), 2835, 2835, 0, 0)
    if header > 40:
        info += masks.ljust(header - 40, b"\0")
    beginning = 14 + len(info) + (len(masks) if header == 40 else 0)
    info += masks if header == 40 else b""
    return b"BM" + struct.pack("<IHHI", beginning + len(rows), 0, 0, beginning) + info + rows


def packed_12_bits(values: np.ndarray) -> bytes:
    """A TIFF of two samples in three bytes."""
    first, second = values.reshape(-1, 2).T.astype(np.uint16)
    rows = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()
    height, width = values.shape
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 0), (277, 1), (278, height),
               (279, len(rows))]  # fmt: skip
    begins = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(struct.pack("<HHII", tag, 4, 1, begins if tag == 273 else value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + rows


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def standard_rgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
