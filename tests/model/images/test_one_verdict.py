"""One picture, one verdict: a fitted model scores all encodings of a good part alike."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

from model import Engine, Fit, FitOptions, ImageRejected, Scored, read_frame
from tests.model.images.pictures import levels, packed_12_bits, pillow, png, three, tiff, twill

EXACT, LOSSY = 0.02, 0.05
"""How far normalised scores may lie apart: of encodings that keep the picture, of those that lose some of it."""


def fitted(size: int, side: int, steps: int, images: int = 48) -> Callable[[bytes], Scored]:
    """A model of good parts as 8-bit PNG; scores bytes."""
    good = [Image.fromarray(levels(twill(seed, side), 8)) for seed in range(images)]
    frames = [read_frame(pillow(image, compress_level=1), size) for image in good]
    options = FitOptions(size=size, steps=steps)
    bundle = Fit("twill", frames[: 3 * images // 4], frames[3 * images // 4 :], options).run()
    engine = Engine(lambda _: bundle)
    preprocessing = bundle.manifest.preprocessing

    def score(data: bytes) -> Scored:
        (scored,) = engine.score([preprocessing.read(data)], ["twill"])
        return scored

    return score


@pytest.fixture(scope="module")
def score() -> Callable[[bytes], Scored]:
    return fitted(128, side=512, steps=60)


def test_every_encoding_of_a_part_has_its_score(score: Callable[[bytes], Scored]) -> None:
    gray = twill(902, 512)
    u8, u12, u16 = (levels(gray, bits) for bits in (8, 12, 16))
    image = Image.fromarray(three(u8))
    reference = score(pillow(image))
    assert is_clear(reference)
    exact = [
        pillow(Image.fromarray(u8)), pillow(image, "BMP"), pillow(image, "WEBP", lossless=True), png(u16), tiff(u16),
        tiff(65535 - u16, photometric="miniswhite"), png(three(u16)), packed_12_bits(u12), png(u12, (12,)),
        tiff(three(u8), photometric="rgb", extratags=[(274, 3, 1, 6, True)]),
    ]  # fmt: skip
    lossy = [
        pillow(image, "JPEG", quality=95, subsampling=0), pillow(image, "JPEG", quality=95, progressive=True),
        pillow(image.convert("CMYK"), "JPEG", quality=95), pillow(image, "WEBP", quality=95),
    ]  # fmt: skip
    for encodings, most in ((exact, EXACT), (lossy, LOSSY)):
        scores = [score(data) for data in encodings]
        assert max(abs(one.normalised_score - reference.normalised_score) for one in scores) <= most
        assert {one.verdict for one in scores} == {reference.verdict}


def test_fine_texture_scores_alike_as_png_and_as_jpeg(score: Callable[[bytes], Scored]) -> None:
    check_fine_texture(score, 512)


def test_fine_texture_scores_alike_at_the_size_that_is_shipped() -> None:
    check_fine_texture(fitted(256, side=1024, steps=40), 1024)


def check_fine_texture(score: Callable[[bytes], Scored], side: int) -> None:
    """The decoder of a JPEG must not leave out what resizing needs."""
    clear = 0
    for seed in range(800, 820):
        image = Image.fromarray(three(levels(twill(seed, side), 8)))
        reference = score(pillow(image, compress_level=1))
        clear += is_clear(reference)
        for quality in (92, 98):
            lossy = score(pillow(image, "JPEG", quality=quality))
            assert abs(lossy.normalised_score - reference.normalised_score) <= LOSSY
            assert lossy.verdict == reference.verdict or not is_clear(reference)
    assert clear >= 15


def is_clear(scored: Scored) -> bool:
    """Whether no score as near as LOSSY has another verdict: a limit may lie between any two scores."""
    return all(abs(scored.normalised_score - limit) > LOSSY for limit in (scored.review_low, scored.review_high))


def test_a_version_from_before_the_bound_reads_as_it_was_calibrated() -> None:
    """Its manifest has the old name; the decoder goes as near as it did."""
    data = pillow(Image.fromarray(three(levels(twill(7, 512), 8))), "JPEG", quality=92)
    image = Image.open(io.BytesIO(data))
    image.draft(None, (64, 64))
    before = image.resize((64, 64), Image.Resampling.BILINEAR)
    old = read_frame(data, 64, resize="jpeg-scaled-pillow-bilinear")
    assert old.pixels.tobytes() == before.tobytes()
    assert read_frame(data, 64).pixels.tobytes() != before.tobytes()


def test_a_refusal_is_not_a_score(score: Callable[[bytes], Scored]) -> None:
    with pytest.raises(ImageRejected):
        score(tiff(levels(twill(900, 512), 12)))
