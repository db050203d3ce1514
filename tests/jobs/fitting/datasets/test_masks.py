"""Ground-truth masks: white where defective, and hostile files refused in one line."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from jobs.fitting.datasets import DatasetError
from jobs.fitting.datasets.masks import encoded as stored
from jobs.fitting.datasets.masks import read_mask, read_truth


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


BOX = np.zeros((96, 96), bool)
BOX[20:50, 40:80] = True


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def painted(*colours: tuple[int, ...], form: str = "PNG", **options: object) -> bytes:
    """The box in the second colour on the first."""
    pixels = np.where(BOX[..., None], np.array(colours[1], np.uint8), np.array(colours[0], np.uint8))
    return saved(Image.fromarray(pixels.squeeze()), form, **options)


def of_palette(palette: list[int], background: int, defect: int) -> bytes:
    image = Image.fromarray(np.where(BOX, defect, background).astype(np.uint8)).convert("L")
    indexed = Image.frombytes("P", image.size, image.tobytes())
    indexed.putpalette(palette)
    return saved(indexed)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(painted((0,), (255,)), id="gray"),
        pytest.param(painted((0,), (1,)), id="0 and 1"),
        pytest.param(painted((0,), (3,)), id="a number of a kind"),
        pytest.param(painted((0,), (128,)), id="gray at half"),
        pytest.param(saved(Image.fromarray(BOX)), id="bilevel"),
        pytest.param(saved(Image.fromarray(BOX), "TIFF", compression="group4"), id="bilevel TIFF"),
        pytest.param(saved(Image.fromarray(BOX.astype(np.uint16) * 65535)), id="16 bit"),
        pytest.param(saved(Image.fromarray(BOX.astype(np.uint16))), id="16 bit of 0 and 1"),
        pytest.param(saved(Image.fromarray(BOX.astype(np.uint16) * 4095), "TIFF"), id="12 bit in 16"),
        pytest.param(saved(Image.fromarray(BOX.astype(np.float32)), "TIFF"), id="float"),
        pytest.param(painted((0, 0, 0), (255, 0, 0)), id="red on black"),
        pytest.param(painted((0, 0, 0), (128, 0, 0)), id="dark red on black"),
        pytest.param(painted((255, 255, 255, 0), (255, 255, 255, 255)), id="alpha"),
        pytest.param(painted((0, 0, 0, 0), (200, 30, 0, 255)), id="a colour on a transparent ground"),
        pytest.param(painted((0, 0, 0, 255), (255, 255, 255, 255)), id="opaque RGBA"),
        pytest.param(painted((0, 255), (255, 255)), id="opaque gray with alpha"),
        pytest.param(of_palette([0, 0, 0, 128, 0, 0], 0, 1), id="palette of labels"),
        pytest.param(of_palette([0, 0, 0], 0, 255), id="palette of one colour"),
        pytest.param(of_palette([255, 255, 255, 0, 0, 0], 1, 0), id="palette that begins with white"),
        pytest.param(of_palette([90, 90, 90, 0, 200, 0], 0, 1), id="palette that begins with gray"),
        pytest.param(painted((0, 0, 0), (255, 255, 255), form="BMP"), id="BMP"),
    ],
)
def test_masks_of_every_program_mean_the_same(data: bytes) -> None:
    assert read_mask(data).tolist() == BOX.tolist()


def test_a_lossy_mask_loses_at_most_its_rim() -> None:
    assert np.count_nonzero(read_mask(painted((0,), (255,), form="JPEG", quality=75)) != BOX) <= 2 * (30 + 40)


def test_a_soft_edge_is_halved() -> None:
    soft = Image.fromarray(BOX.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))
    assert np.count_nonzero(read_mask(saved(soft)) != BOX) <= 8, "its corners"


def test_what_is_stored_means_the_same_and_is_an_8_bit_png() -> None:
    with Image.open(io.BytesIO(stored(BOX))) as image:
        assert (image.format, image.mode, set(np.unique(np.asarray(image)))) == ("PNG", "L", {0, 255})
    assert read_mask(stored(BOX)).tolist() == BOX.tolist()


@pytest.mark.parametrize("low", [60, 100])
def test_gray_levels_that_could_be_kinds_of_defects_are_not_thrown_away(low: int) -> None:
    pixels = np.where(BOX, 255, 0).astype(np.uint8)
    pixels[60:90, 40:80] = low
    with pytest.raises(DatasetError, match="draw it in black and white"):
        read_mask(encoded(pixels))


def test_a_heat_map_and_a_stack_of_pages_are_no_masks() -> None:
    y, x = np.mgrid[:96, :96]
    with pytest.raises(DatasetError, match="black and white"):
        read_mask(encoded((255 * np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / 300)).astype(np.uint8)))
    pages = [Image.fromarray(BOX), Image.fromarray(~BOX)]
    with pytest.raises(DatasetError, match="several pages"):
        read_mask(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))


def test_the_parts_of_a_truth_are_drawn_in_one() -> None:
    for name, part in {"a.png": BOX, "b.png": BOX.T}.items():
        Path(name).write_bytes(stored(part))
    truth = read_truth([Path("a.png"), Path("b.png")], 96, 96)
    assert truth.tolist() == (BOX | BOX.T).tolist()
    with pytest.raises(DatasetError, match=r"gone\.png can't be read"):
        read_truth([Path("a.png"), Path("gone.png")], 96, 96)
    with pytest.raises(DatasetError, match=r"a\.png has 96 x 96 pixels and the image 64 x 96"):
        read_truth([Path("a.png")], 96, 64)


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
