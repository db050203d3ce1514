"""Masks and anomaly maps as PNG files."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from model.errors import UnreadableImage
from model.verdict.scored import Scored, anomaly_pixels

HEAT_SCALE = 8192
"""The 16-bit value of the threshold in a heat map; the largest that can be told is 65535 / 8192 = 8 thresholds."""


def encode_mask_png(mask: np.ndarray) -> bytes:
    """A mask, uint8 [height, width], as an 8-bit gray PNG."""
    if not mask.any():
        return _empty_mask_png(*mask.shape)
    return _png(mask.astype(np.uint8, copy=False))


@lru_cache(maxsize=64)
def _empty_mask_png(height: int, width: int) -> bytes:
    """What nearly all images of a line get: encoded once per size."""
    return _png(np.zeros((height, width), dtype=np.uint8))


def encode_heat_png(scored: Scored) -> bytes:
    """The anomaly map at the original size as a 16-bit gray PNG: normalised value * 8192, rounded and clipped."""
    pixels = anomaly_pixels(scored)
    return _png(np.clip(np.rint(pixels * HEAT_SCALE), 0, 65535).astype(np.uint16))


def decode_heat_png(data: bytes) -> np.ndarray:
    """A heat map's normalised values, float32 [height, width]. Raises UnreadableImage."""
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        if image.mode not in ("I;16", "I;16B", "I"):
            raise UnreadableImage(f"a heat map is a 16-bit gray PNG, this one has mode {image.mode}")
        values = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(f"the heat map of {len(data)} bytes cannot be decoded: {error}") from error
    heat: np.ndarray = values.astype(np.float32) / HEAT_SCALE
    return heat


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
