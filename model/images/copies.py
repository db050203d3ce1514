"""When two files show one picture: equal pixels, whatever the file says beside them; and when nearly so.

A picture that is saved again, or under other metadata, is another file with the same pixels. Counted as two, it would
stand on both sides of the split into trained and held-out images, and the threshold would be one of images that the
student has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from model.images.frames import Frame

LOOK_SIDE = 16
NEAR_CONTRAST = 0.1
"""Part of a look's own standard deviation that it may be at most: all dark or foggy pictures are alike."""
NEAR_RMS = 0.6
"""Gray levels between two looks that are nearly one. A JPEG of quality 90 of the same picture stays below 0.5; two
parts before a fixed camera were 1.3 apart or more in five of six sets of photographs, 0.6 in the finest drawn one."""
_ROWS = 1024


def pixel_digest(frame: Frame) -> str:
    """sha256 (hex) of an image's size and pixels. Give a frame at full resolution: read_frame(..., tiled=True)."""
    digest = hashlib.sha256(f"{frame.width}x{frame.height}:".encode())
    digest.update(np.ascontiguousarray(frame.pixels).data)
    return digest.hexdigest()


def is_uniform(frame: Frame) -> bool:
    """Whether every pixel has the same value: a covered lens, a cable out, light that drowns everything."""
    return bool((frame.pixels == frame.pixels[0, 0]).all())


def look(frame: Frame) -> bytes:
    """The picture in 16 x 16 gray levels, row by row: alike for what a person would call the same shot."""
    gray = Image.fromarray(frame.pixels).convert("L")
    return gray.resize((LOOK_SIDE, LOOK_SIDE), Image.Resampling.BOX).tobytes()


def times_darker(looks: Sequence[bytes]) -> list[float]:
    """How many times darker each picture is than the median one, by its brightest places."""
    if not looks:
        return []
    brightest = np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), -1).max(axis=1).astype(float)
    return [float(one) for one in np.median(brightest) / np.maximum(brightest, 0.5)]


def near_pairs(looks: Sequence[bytes], among: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Indexes (into looks, into among) of pairs that are nearly the same picture."""
    if not looks or not among:
        return
    ours, theirs = (np.frombuffer(b"".join(part), np.uint8).reshape(len(part), -1) for part in (looks, among))
    limits = np.minimum(NEAR_RMS, NEAR_CONTRAST * ours.std(axis=1)) ** 2 * LOOK_SIDE**2
    # Taken off both, so that float32 is exact enough for the difference of what would be two large numbers.
    centre = theirs.mean(axis=0, dtype=np.float32)
    ours, theirs = (part.astype(np.float32) - centre for part in (ours, theirs))
    norms = np.square(theirs).sum(axis=1)
    for begin in range(0, len(ours), _ROWS):
        rows = ours[begin : begin + _ROWS]
        squares = np.square(rows).sum(axis=1)[:, None] + norms - 2 * rows @ theirs.T
        for row, column in np.argwhere(squares < limits[begin : begin + _ROWS, None]):
            yield begin + int(row), int(column)
