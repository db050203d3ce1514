"""One picture, one meaning: whatever the encoding, the same pixels, or a refusal that names it."""

from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from model import DepthMismatch, ImageRejected, SeveralPictures, UnreadableImage, UnsupportedEncoding, UnsupportedFormat
from model.images.frames import read_frame
from model.images.reading import Reading
from tests.model.images import pictures
from tests.model.images.pictures import bmp, levels, packed_12_bits, pillow, png, three, tiff, twill

SIDE = 96
GRAY = twill(900, SIDE)
OTHER = twill(901, SIDE)
GRAY[0, 0], GRAY[0, 1] = 1, 0  # the whole range is used
U8, U12, U16 = (levels(GRAY, bits) for bits in (8, 12, 16))
RGB = three(U8)
PICTURE = Image.fromarray(RGB)
# 12 bits round to 8 a little otherwise than the scene itself does.
EXACT, ROUNDED, LOSSY = 0.0, 0.1, 3.0
"""Largest mean difference in levels of 255."""

TWELVE = Reading(bit_depth=12)
SIXTEEN = Reading(bit_depth=16)
UNIT = Reading(value_range=(0, 1))


def difference(data: bytes, reading: Reading | None = None) -> float:
    frame = read_frame(data, 64, tiled=True, reading=reading or Reading())
    assert (frame.width, frame.height) == (SIDE, SIDE)
    return float(np.abs(frame.pixels.astype(int) - RGB).mean())


def rgba(alpha: int) -> np.ndarray:
    return np.dstack([RGB, np.full_like(U8, alpha)])


def bgrx(fourth: int) -> bytes:
    return np.dstack([RGB[..., ::-1], np.full_like(U8, fourth)])[::-1].tobytes()


ALPHA_MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
SAME: dict[str, tuple[bytes, float]] = {
    "PNG gray": (pillow(Image.fromarray(U8)), EXACT),
    "PNG palette": (pillow(Image.fromarray(U8).convert("P")), EXACT),
    "PNG colour key": (pillow(Image.fromarray(U8), transparency=int(U8[5, 5])), EXACT),
    "PNG opaque": (pillow(Image.fromarray(rgba(255))), EXACT),
    "PNG alpha 0 everywhere": (pillow(Image.fromarray(rgba(0))), EXACT),
    "PNG half alpha everywhere": (pillow(Image.fromarray(rgba(128))), EXACT),
    "PNG turned by its tag": (pillow(PICTURE, exif=pictures.exif(6)), EXACT),
    "PNG with a colour profile": (pillow(PICTURE, icc_profile=pictures.standard_rgb()), EXACT),
    "PNG 16 bits": (png(U16), ROUNDED),
    "PNG 16 bits RGB": (png(three(U16)), ROUNDED),
    "PNG 16 bits with alpha": (png(np.dstack([U16, np.full_like(U16, 65535)])), ROUNDED),
    "PNG 12 of 16 bits scaled up": (png(U12 << 4 | U12 >> 8, (12,)), ROUNDED),
    "PNG 12 of 16 bits as they are": (png(U12, (12,)), ROUNDED),
    "PNG 12 of 16 bits RGB as they are": (png(three(U12), (12, 12, 12)), ROUNDED),
    "TIFF": (tiff(RGB, photometric="rgb"), EXACT),
    "TIFF LZW": (tiff(RGB, photometric="rgb", compression="lzw", predictor=True), EXACT),
    "TIFF Deflate in tiles": (tiff(RGB, photometric="rgb", compression="deflate", tile=(32, 32)), EXACT),
    "TIFF Zstandard": (tiff(RGB, photometric="rgb", compression="zstd"), EXACT),
    "TIFF in planes": (tiff(np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"), EXACT),
    "BigTIFF": (tiff(RGB, photometric="rgb", bigtiff=True), EXACT),
    "TIFF big-endian 16 bits": (tiff(U16, byteorder=">"), ROUNDED),
    "TIFF white is zero": (tiff(255 - U8, photometric="miniswhite"), EXACT),
    "TIFF 16 bits white is zero": (tiff(65535 - U16, photometric="miniswhite"), ROUNDED),
    "TIFF 16 bits": (tiff(U16), ROUNDED),
    "TIFF 16 bits LZW with predictor": (tiff(U16, compression="lzw", predictor=True), ROUNDED),
    "TIFF 16 bits RGB": (tiff(three(U16), photometric="rgb"), ROUNDED),
    "TIFF 16 bits in planes": (
        tiff(np.moveaxis(three(U16), 2, 0), photometric="rgb", planarconfig="separate"), ROUNDED,
    ),
    "TIFF 16 bits in planes and strips": (
        tiff(np.moveaxis(three(U16), 2, 0), photometric="rgb", planarconfig="separate", rowsperstrip=7), ROUNDED,
    ),
    "TIFF RGB and infrared": (tiff(rgba(7), photometric="rgb", extrasamples=["unspecified"]), EXACT),
    "TIFF 12 bits packed": (packed_12_bits(U12), ROUNDED),
    "JPEG": (pillow(PICTURE, "JPEG", quality=95), LOSSY),
    "JPEG progressive": (pillow(PICTURE, "JPEG", quality=95, progressive=True), LOSSY),
    "JPEG gray": (pillow(Image.fromarray(U8), "JPEG", quality=95), LOSSY),
    "JPEG CMYK": (pillow(PICTURE.convert("CMYK"), "JPEG", quality=95), LOSSY),
    "JPEG turned by its tag": (pillow(PICTURE, "JPEG", quality=95, exif=pictures.exif(6)), LOSSY),
    "JPEG padded": (pillow(PICTURE, "JPEG", quality=95) + b"\xff" * 512 + b"\0" * 512, LOSSY),
    "JPEG in TIFF": (tiff(RGB, photometric="rgb", compression="jpeg", compressionargs={"level": 95}), LOSSY),
    "JPEG lossless": (imagecodecs.ljpeg_encode(U8), EXACT),
    "BMP": (pillow(PICTURE, "BMP"), EXACT),
    "BMP gray": (pillow(Image.fromarray(U8), "BMP"), EXACT),
    "BMP 32 bits": (bmp(bgrx(0), side=SIDE, bits=32), EXACT),
    "BMP alpha 0": (bmp(bgrx(0), side=SIDE, bits=32, compression=3, header=108, masks=ALPHA_MASKS), EXACT),
    "BMP alpha 255": (bmp(bgrx(255), side=SIDE, bits=32, compression=3, header=124, masks=ALPHA_MASKS), EXACT),
    "WebP lossless": (pillow(PICTURE, "WEBP", lossless=True), EXACT),
    "WebP lossy": (pillow(PICTURE, "WEBP", quality=95), LOSSY),
    "WebP alpha 0": (pillow(Image.fromarray(rgba(0)), "WEBP", lossless=True, exact=True), EXACT),
    "WebP turned by its tag": (pillow(PICTURE, "WEBP", lossless=True, exif=pictures.exif(8)), EXACT),
}  # fmt: skip


def with_thumbnail() -> bytes:
    buffer = io.BytesIO()
    with pictures.tifffile.TiffWriter(buffer) as writer:
        writer.write(RGB[::4, ::4].copy(), photometric="rgb", subfiletype=1)
        writer.write(RGB, photometric="rgb")
    return buffer.getvalue()


SAME["TIFF behind its thumbnail"] = (with_thumbnail(), EXACT)
SAME |= {
    f"TIFF {name} turned by tag {tag}": (
        tiff(values, photometric="rgb", compression=compression, extratags=[(274, 3, 1, tag, True)]), most,
    )
    for tag in range(2, 9)
    for name, values, most, compression in (("RGB", RGB, EXACT, None), ("RGB 16 bits LZW", three(U16), ROUNDED, "lzw"))
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_the_same_picture_gives_the_same_pixels(name: str) -> None:
    data, most = SAME[name]
    assert difference(data) <= most


REFUSED: dict[str, tuple[bytes, type[ImageRejected], str]] = {
    "JPEG 12 bits": (imagecodecs.jpeg8_encode(U12, bitspersample=12), UnsupportedEncoding, "JPEG of 12 bits a sample"),
    "JPEG 2000": (imagecodecs.jpeg2k_encode(RGB), UnsupportedFormat, "JPEG 2000"),
    "JPEG XL": (imagecodecs.jpegxl_encode(RGB), UnsupportedFormat, "JPEG XL"),
    "JPEG-LS": (imagecodecs.jpegls_encode(U8), UnsupportedEncoding, "JPEG-LS"),
    "JPEG without its end": (pillow(PICTURE, "JPEG")[:-2], UnreadableImage, "no end marker"),
    "JPEG followed by another": (pillow(PICTURE, "JPEG") + pillow(PICTURE, "JPEG"), SeveralPictures, "another JPEG"),
    "GIF": (pillow(PICTURE, "GIF"), UnsupportedFormat, "a GIF image"),
    "AVIF": (imagecodecs.avif_encode(RGB), UnsupportedFormat, "AVIF"),
    "PPM": (pillow(PICTURE, "PPM"), UnsupportedFormat, "Netpbm"),
    "PNG in base64": (b"iVBORw0KGgoAAAANSUhEUgAA" * 9, UnsupportedFormat, "base64"),
    "JPEG in base64": (b"/9j/4AAQSkZJRgABAQAAAQAB" * 9, UnsupportedFormat, "base64"),
    "form": (b"--x\r\nContent-Disposition: form-data\r\n\r\n" + pillow(PICTURE), UnsupportedFormat, "multipart"),
    "JSON": (b'{"image": "iVBORw0"}', UnsupportedFormat, "JSON"),
    "TIFF 12 of 16 bits": (tiff(U12), DepthMismatch, "fit.bit_depth"),
    "TIFF 12 of 16 bits RGB": (tiff(three(U12), photometric="rgb"), DepthMismatch, "values end at 4095"),
    "PNG 10 of 16 bits": (png(levels(GRAY, 10)), DepthMismatch, "values end at 1023"),
    "PNG 12 of 16 bits RGB": (png(three(U12)), DepthMismatch, "values end at 4095"),
    "PNG whose sBIT is wrong": (png(U16, (12,)), UnsupportedEncoding, "sBIT"),
    "TIFF float": (tiff(GRAY.astype(np.float32)), UnsupportedEncoding, r"\(float\).*fit.value_range"),
    "TIFF float of 16 bits": (tiff(GRAY.astype(np.float16)), UnsupportedEncoding, r"16 bits \(float\)"),
    "TIFF float of 64 bits": (tiff(GRAY), UnsupportedEncoding, r"64 bits \(float\)"),
    "TIFF 32 bits": (tiff(U8.astype(np.uint32)), UnsupportedEncoding, "32 bits"),
    "TIFF signed": (tiff((U16 >> 1).astype(np.int16)), UnsupportedEncoding, r"16 bits \(signed\)"),
    "TIFF signed 8 bits": (tiff((U8.astype(int) - 128).astype(np.int8)), UnsupportedEncoding, r"8 bits \(signed\)"),
    "TIFF LERC": (tiff(RGB, photometric="rgb", compression="lerc"), UnsupportedEncoding, "LERC"),
    "TIFF of five channels": (
        tiff(np.dstack([RGB, U8, U8]), photometric="minisblack", planarconfig="contig"),
        UnsupportedEncoding, "5 x 8 bits",
    ),
    "TIFF 16 bits in compressed planes": (
        tiff(np.moveaxis(three(U16), 2, 0), photometric="rgb", planarconfig="separate", compression="lzw"),
        UnsupportedEncoding, "in planes",
    ),
    "TIFF multiplied by alpha 0": (
        tiff(rgba(0), photometric="rgb", extrasamples=["assocalpha"]), UnsupportedEncoding, "alpha that is 0",
    ),
    "TIFF of two pages": (tiff(U8, levels(OTHER, 8)), SeveralPictures, "2 pictures .*fit.page"),
    "APNG": (pillow(PICTURE, save_all=True, append_images=[PICTURE.rotate(90)]), SeveralPictures, "2 pictures"),
    "animated WebP": (
        pillow(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90)]), SeveralPictures, "2 pictures",
    ),
    "MPO": (pillow(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(90)]), SeveralPictures, "2 pictures"),
    "PNG of one bit": (pillow(PICTURE.convert("1")), UnsupportedEncoding, "fewer than 8 bits"),
    "BMP 5-6-5": (bmp(b"\0" * (2 * SIDE * SIDE), side=SIDE, bits=16), UnsupportedEncoding, "fewer than 8 bits"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_rightly_is_refused_by_its_name(name: str) -> None:
    data, kind, reason = REFUSED[name]
    with pytest.raises(kind, match=reason) as caught:
        read_frame(data, 64)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_a_product_can_say_how_many_bits_its_camera_fills() -> None:
    for data in (tiff(U12), png(U12), tiff(three(U12), photometric="rgb"), png(three(U12)), packed_12_bits(U12),
                 tiff(U12, byteorder=">"), tiff(three(U12), photometric="rgb", compression="lzw"),
                 tiff(4095 - U12, photometric="miniswhite"), png(np.dstack([three(U12), np.full_like(U12, 4095)])),
                 png(np.dstack([U12, np.full_like(U12, 4095)])), png(U12, (12,)),
                 png(U12 << 4 | U12 >> 8, (12,))):  # fmt: skip
        assert difference(data, TWELVE) <= ROUNDED
    assert difference(tiff(levels(GRAY, 10)), Reading(bit_depth=10)) <= ROUNDED
    assert difference(png(three(levels(GRAY, 14))), Reading(bit_depth=14)) <= ROUNDED


@pytest.mark.parametrize("data", [pillow(PICTURE), pillow(PICTURE, "JPEG"), pillow(Image.fromarray(U8), "BMP")])
def test_an_8_bit_image_is_none_of_a_12_bit_product(data: bytes) -> None:
    with pytest.raises(DepthMismatch, match=r"12 bits a sample \(fit.bit_depth\), this is one of 8"):
        read_frame(data, 64, reading=TWELVE)


def test_values_beyond_the_stated_bits_are_refused() -> None:
    for data in (tiff(U16), png(three(U16))):
        with pytest.raises(DepthMismatch, match="65535 do not fit into 12 bits"):
            read_frame(data, 64, reading=TWELVE)
    with pytest.raises(DepthMismatch, match="this is one of 12"):
        read_frame(packed_12_bits(U12), 64, reading=SIXTEEN)
    with pytest.raises(DepthMismatch, match="states 10"):
        read_frame(png(levels(GRAY, 10), (10,)), 64, reading=TWELVE)
    with pytest.raises(DepthMismatch, match="this is one of 16"):
        read_frame(png(U16), 64, reading=Reading(bit_depth=8))


def test_a_dark_16_bit_image_stays_dark_where_the_product_says_16() -> None:
    pixels = read_frame(tiff(U12), 64, tiled=True, reading=SIXTEEN).pixels
    assert np.array_equal(pixels[..., 0], np.rint(U12 / 257))


def test_depth_is_never_read_off_the_values() -> None:
    """A picture half as bright is half as bright, whatever its largest value is."""
    for bits, reading in ((12, TWELVE), (16, SIXTEEN)):
        dim = levels(GRAY * 0.2, bits)
        expected = levels(GRAY * 0.2, 8)
        pixels = read_frame(tiff(dim), 64, tiled=True, reading=reading).pixels[..., 0]
        assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_float_and_32_bit_samples_go_by_the_stated_range() -> None:
    assert difference(tiff(GRAY.astype(np.float32)), UNIT) <= ROUNDED
    assert difference(tiff((1 - GRAY).astype(np.float32), photometric="miniswhite"), UNIT) <= ROUNDED
    assert difference(tiff((GRAY * 4095).astype(np.float32)), Reading(value_range=(0, 4095))) <= ROUNDED
    assert difference(tiff((GRAY * (2**32 - 1)).astype(np.uint32)), Reading(value_range=(0, 2**32 - 1))) <= ROUNDED
    assert difference(tiff(U8.astype(np.int32) - 100), Reading(value_range=(-100, 155))) <= ROUNDED
    assert difference(tiff((U8.astype(int) - 128).astype(np.int8)), Reading(value_range=(-128, 127))) <= ROUNDED


def test_samples_outside_of_the_stated_range_or_none_at_all_are_refused() -> None:
    with pytest.raises(DepthMismatch, match="from 0 to 4095 lie outside"):
        read_frame(tiff((GRAY * 4095).astype(np.float32)), 64, reading=UNIT)
    holes = GRAY.astype(np.float32)
    holes[3, :5] = np.nan
    with pytest.raises(UnreadableImage, match="5 samples are not a number"):
        read_frame(tiff(holes), 64, reading=UNIT)
    with pytest.raises(DepthMismatch, match=r"fit\.value_range"):
        read_frame(pillow(PICTURE), 64, reading=UNIT)


def test_a_product_can_say_which_picture_of_a_file_is_meant() -> None:
    pages = tiff(levels(OTHER, 8), U8)
    first = Image.fromarray(three(levels(OTHER, 8)))
    frames = pillow(first, "WEBP", lossless=True, save_all=True, append_images=[PICTURE])
    for data in (pages, frames):
        assert difference(data, Reading(page=2)) == EXACT
        assert difference(data, Reading(page=1)) > LOSSY
    assert difference(pillow(PICTURE), Reading(page=1)) == EXACT
    with pytest.raises(SeveralPictures, match=r"asks for picture 2 .* holds 1"):
        read_frame(pillow(PICTURE), 64, reading=Reading(page=2))
    assert difference(with_thumbnail(), Reading(page=1)) == EXACT


def test_a_lossless_jpeg_is_never_decoded_at_a_fraction() -> None:
    gray = levels(twill(3, 512), 8)
    pixels = read_frame(imagecodecs.ljpeg_encode(gray), 64).pixels
    assert np.array_equal(pixels, read_frame(pillow(Image.fromarray(gray)), 64).pixels)


def test_transparency_that_differs_from_place_to_place_is_laid_on_black() -> None:
    cut_out = rgba(255)
    cut_out[: SIDE // 2, :, 3] = 0
    pixels = read_frame(pillow(Image.fromarray(cut_out)), 64, tiled=True).pixels
    assert (pixels[: SIDE // 2] == 0).all()
    assert np.array_equal(pixels[SIDE // 2 :], RGB[SIDE // 2 :])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"value_range": (1, 1)}, "black must be less than white"),
        ({"value_range": (0, float("inf"))}, "finite"),
        ({"value_range": (0, 1), "bit_depth": 12}, "set one of them"),
        ({"bit_depth": 11}, "8, 10, 12, 14 or 16"),
        ({"page": 0}, "greater than or equal to 1"),
    ],
)
def test_a_reading_that_makes_no_sense_is_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Reading.model_validate(values)


def test_a_png_that_claims_any_sbit_is_read_or_refused() -> None:
    taken = []
    for stated in range(256):
        try:
            read_frame(png(U16, (stated,)), 64)
        except ImageRejected:
            continue
        taken.append(stated)
    assert taken == [15, 16], "of 16 bits, and scaled from 15 they would be the same"


def test_thousands_of_pages_are_not_all_opened() -> None:
    """Pages in a circle or without end cost little: a file is refused after a hundred."""
    data = bytearray(tiff(*[np.zeros((1, 1), np.uint8)] * 300))
    with pytest.raises(SeveralPictures, match="100 pictures"):
        read_frame(bytes(data), 64)


def test_a_broken_chunk_of_a_png_is_no_meaning() -> None:
    body = b"sBIT"
    data = pillow(PICTURE)
    broken = data[:33] + struct.pack(">I", 0) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    assert difference(broken) == EXACT
