from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model import (
    EmptyImage,
    Frame,
    ImageLimits,
    ImageRejected,
    ImageTooLarge,
    UnreadableImage,
    UnsupportedFormat,
    read_frame,
)
from model.images.frames import IMAGENET_MEAN, IMAGENET_STD, normalised


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def gradient(width: int = 90, height: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 128)], axis=-1).astype(np.uint8)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP", "JPEG"])
def test_reads_each_format_and_keeps_the_original_size(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    frame = read_frame(encoded(Image.fromarray(gradient()), form, **options), 64)
    assert (frame.width, frame.height, frame.size) == (90, 60, 64)
    assert frame.pixels.dtype == np.uint8
    reference = read_frame(encoded(Image.fromarray(gradient())), 64)
    assert np.abs(frame.pixels.astype(int) - reference.pixels).max() <= (12 if form == "JPEG" else 0)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    pixels = gradient(64, 64)
    assert np.array_equal(read_frame(encoded(Image.fromarray(pixels)), 64).pixels, pixels)


def test_shrinking_is_antialiased() -> None:
    checkers = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = read_frame(encoded(Image.fromarray(checkers)), 64).pixels
    assert pixels.min() >= 120
    assert pixels.max() <= 135


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_and_not_clipped(form: str) -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = read_frame(encoded(Image.fromarray(values), form), 64).pixels
    assert np.array_equal(pixels[..., 0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_palette_and_cmyk_become_rgb() -> None:
    rgb = Image.fromarray(gradient(64, 64))
    for image, form in ((rgb.quantize(32), "PNG"), (rgb.convert("CMYK"), "TIFF")):
        assert read_frame(encoded(image, form), 64).pixels.shape == (64, 64, 3)


def test_transparency_is_laid_on_black() -> None:
    rgba = np.full((64, 64, 4), 200, dtype=np.uint8)
    rgba[:32, :, 3], rgba[32:, :, 3] = 0, 255
    pixels = read_frame(encoded(Image.fromarray(rgba)), 64).pixels
    assert (pixels[:32] == 0).all()
    assert (pixels[32:] == 200).all()


def test_transparent_palette_does_not_warn() -> None:
    palette = Image.fromarray(gradient(64, 64)).quantize(8)
    data = encoded(palette, transparency=bytes([0, 128, 255]))
    assert read_frame(data, 64).pixels.shape == (64, 64, 3)


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    frame = read_frame(encoded(Image.fromarray(gradient()), "JPEG", exif=exif.tobytes()), 64)
    assert (frame.width, frame.height) == (90, 60)


def test_no_bytes() -> None:
    with pytest.raises(EmptyImage, match="no bytes"):
        read_frame(b"", 64)


@pytest.mark.parametrize("data", [b"hello, I am a text file\n" * 9, b"\0" * 100, b"%PDF-1.7", b"GIF89a" + b"\0" * 60])
def test_content_that_is_no_accepted_format(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="send one of these formats"):
        read_frame(data, 64)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_truncated_file(form: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(ImageRejected):
        read_frame(data[: int(len(data) * keep)], 64)


def test_truncated_png_says_so() -> None:
    data = encoded(Image.fromarray(gradient()))
    with pytest.raises(UnreadableImage, match="truncated or corrupt"):
        read_frame(data[: len(data) // 2], 64)


@pytest.mark.parametrize("side", [60_000, 2_000_000_000])
def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(side: int) -> None:
    with pytest.raises(ImageRejected) as caught:
        read_frame(png_claiming(side, side), 64)
    if side == 60_000:
        assert isinstance(caught.value, ImageTooLarge)


def test_limits_are_kept() -> None:
    data = encoded(Image.fromarray(gradient()))
    with pytest.raises(ImageTooLarge, match="90 x 60"):
        read_frame(data, 64, ImageLimits(max_pixels=90 * 60 - 1))
    with pytest.raises(ImageTooLarge, match="bytes"):
        read_frame(data, 64, ImageLimits(max_bytes=len(data) - 1))
    read_frame(data, 64, ImageLimits(max_bytes=len(data), max_pixels=90 * 60))


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "TIFF", "BMP", "WEBP"]), st.integers(0, 400))
def test_damaged_files_are_read_or_rejected_and_nothing_else(noise: bytes, form: str, at: int) -> None:
    data = bytearray(encoded(Image.fromarray(gradient(40, 30)), form))
    data[at : at + len(noise)] = noise
    try:
        frame = read_frame(bytes(data), 64)
    except ImageRejected:
        return
    assert frame.pixels.shape == (64, 64, 3)


def test_threads_read_the_same_pixels() -> None:
    images = [encoded(Image.fromarray(np.roll(gradient(200, 150), shift, axis=1)), "JPEG") for shift in range(12)]
    alone = [read_frame(data, 64).pixels for data in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: read_frame(data, 64).pixels, images * 8))
    assert all(np.array_equal(pixels, alone[index % 12]) for index, pixels in enumerate(together))


def test_normalised_matches_its_definition() -> None:
    frames = [Frame(gradient(64, 64), 64, 64), Frame(np.zeros((64, 64, 3), dtype=np.uint8), 64, 64)]
    x_BCHW = normalised(frames, IMAGENET_MEAN, IMAGENET_STD)
    assert x_BCHW.shape == (2, 3, 64, 64)
    assert x_BCHW.is_contiguous(memory_format=torch.channels_last)
    expected = (frames[0].pixels / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    assert np.abs(x_BCHW[0].permute(1, 2, 0).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_decoded_at_a_fraction_is_the_image_that_a_png_gives(mode: str, progressive: bool) -> None:
    coarse = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((700, 530), Image.Resampling.BICUBIC).convert(mode)
    jpeg = read_frame(encoded(image, "JPEG", quality=95, progressive=progressive), 128)
    png = read_frame(encoded(image), 128)
    difference = np.abs(jpeg.pixels.astype(int) - png.pixels)
    assert (jpeg.width, jpeg.height) == (700, 530)
    assert difference.mean() < 1.5
    assert difference.max() < 16


def test_tiles_of_a_jpeg_come_at_full_resolution() -> None:
    assert read_frame(encoded(Image.new("RGB", (700, 530)), "JPEG"), 128, tiled=True).pixels.shape == (530, 700, 3)
