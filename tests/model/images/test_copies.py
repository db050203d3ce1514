"""One picture in several files is known by its pixels, and nearly one by its look."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from model import Frame, ImageLimits, read_frame
from model.images.copies import is_uniform, look, near_pairs, pixel_digest


def scene(seed: int, side: int = 96, contrast: float = 40.0) -> np.ndarray:
    """Blotches of 8 pixels, gray [side, side]."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, contrast, (side // 8, side // 8))
    fine = np.kron(coarse, np.ones((8, 8))) + rng.normal(0, 2, (side, side))
    return np.clip(fine, 0, 255).astype(np.uint8)


def saved(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def read(data: bytes) -> Frame:
    return read_frame(data, 32, ImageLimits(), tiled=True)


def test_a_picture_saved_again_has_the_same_pixels() -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("Creation Time", "2026-01-01")
    files = [
        saved(scene(1)),
        saved(scene(1), pnginfo=note),
        saved(scene(1), "BMP"),
        saved(scene(1), "TIFF", compression="tiff_lzw"),
    ]
    assert len({pixel_digest(read(data)) for data in files}) == 1


def test_one_pixel_and_the_shape_make_another_picture() -> None:
    changed = scene(1)
    changed[50, 50] ^= 1
    digests = {pixel_digest(read(saved(pixels))) for pixels in (scene(1), changed, scene(1).reshape(48, 192))}
    assert len(digests) == 3


def test_a_uniform_picture_is_one_without_any_difference() -> None:
    flat = np.full((40, 60), 7, np.uint8)
    assert is_uniform(read(saved(flat)))
    flat[39, 59] = 8
    assert not is_uniform(read(saved(flat)))


@pytest.mark.parametrize("contrast", [40.0, 10.0])
def test_what_was_lossily_saved_is_near_and_other_scenes_are_not(contrast: float) -> None:
    scenes = [scene(seed, contrast=contrast) for seed in range(6)]
    looks = [look(read(saved(pixels))) for pixels in scenes]
    again = [
        look(read(saved(scenes[0], "JPEG", quality=90))),
        look(read(saved(scenes[1], "JPEG", quality=80))),
    ]
    assert set(near_pairs(again, looks)) == {(0, 0), (1, 1)}


def test_dark_scenes_are_not_all_near() -> None:
    """Of a scene of few gray levels, what differs is a fraction of a level."""
    dark = [look(read(saved((scene(seed) // 64).astype(np.uint8)))) for seed in range(6)]
    assert all(one == other for one, other in near_pairs(dark, dark))


def test_nothing_is_near_nothing() -> None:
    assert list(near_pairs([], [])) == []
    assert list(near_pairs([look(read(saved(scene(1))))], [])) == []
