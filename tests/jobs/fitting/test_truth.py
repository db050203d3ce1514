"""Ground-truth masks: white where defective, and hostile files refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.fitting.datasets import DatasetError
from jobs.fitting.truth import read_mask


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 8) + b"IDAT" + b"\0" * 12


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_what_is_brighter_than_half_is_defective(form: str) -> None:
    pixels = np.array([[0, 127], [128, 255]], np.uint8)
    assert read_mask(encoded(pixels, form)).tolist() == [[False, False], [True, True]]


def test_a_colour_mask_counts_too() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    assert read_mask(encoded(pixels)).sum() == 1


@pytest.mark.parametrize("side", [9_000, 10_000, 60_000])
def test_a_mask_that_claims_too_many_pixels_is_refused_before_they_are_decoded(side: int) -> None:
    with pytest.raises(DatasetError):
        read_mask(claiming(side, side))


@pytest.mark.parametrize("data", [b"", b"text", encoded(np.zeros((50, 50), np.uint8))[:60], claiming(0, 5)])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DatasetError, match="mask"):
        read_mask(data)


WHOLE = encoded(np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8).astype(np.uint8), "TIFF")


@given(
    st.binary(max_size=100)
    | st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end])
    | st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
        lambda change: WHOLE[: change[0]] + bytes([change[1]]) + WHOLE[change[0] + 1 :]
    )
)
def test_damaged_bytes_give_a_mask_or_a_refusal_and_nothing_else(data: bytes) -> None:
    try:
        assert read_mask(data).dtype == bool
    except DatasetError:
        pass
