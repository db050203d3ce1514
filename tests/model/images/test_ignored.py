"""Ignored areas: which pixels they take, what is refused, and that nothing that lies there tells on a model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model import (
    BundleError,
    Engine,
    Fit,
    FitError,
    FitOptions,
    Frame,
    IgnoredArea,
    Manifest,
    ModelBundle,
    Scored,
    SizeDiffers,
    cut,
    drawn_area,
    encode_heat_png,
    masked_area,
    read_frame,
)
from model.images.cells import centre_pixels
from model.images.polygons import Polygon, fill
from model.images.tolerance import Tolerance
from model.verdict.pictures import decode_heat_png

SIDE, WIDE, HIGH = 64, 150, 100
CORNER: Polygon = ((0, 0), (60, 0), (60, 45), (0, 45))
POLYGONS = (CORNER, ((150, 100), (150, 50), (100, 100)))
KINDS = {"resized": {}, "tiles": {"tiles": True}, "int8": {"precision": "int8"}}


def encoded(pixels: np.ndarray, form: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(buffer, form)
    return buffer.getvalue()


def mask(value: int = 255) -> np.ndarray:
    pixels = np.zeros((HIGH, WIDE), np.uint8)
    pixels[:45, :60] = value
    return pixels


def photograph(seed: int, *, junk: int | None = None, spot: bool = False) -> bytes:
    """A striped cloth as a PNG. junk: seeds noise within POLYGONS; spot: a defect outside of them."""
    rng = np.random.default_rng(seed)
    stripes = 120 + 40 * np.sin(np.arange(WIDE) / 5 + rng.uniform(0, 6))
    pixels = stripes[None, :, None] + rng.normal(0, 5, (HIGH, WIDE, 3))
    if spot:
        pixels[50:70, 70:95] = 250
    if junk is not None:
        inside = drawn_area(POLYGONS, WIDE, HIGH).mask_HW
        pixels[inside] = np.random.default_rng(junk).uniform(0, 255, (int(inside.sum()), 3))
    return encoded(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module", params=KINDS)
def fitted(request: pytest.FixtureRequest, small_options: Callable[..., FitOptions]) -> ModelBundle:
    return fit(small_options(ignore=POLYGONS, **KINDS[request.param]))


def fit(options: FitOptions, junk: int | None = None) -> ModelBundle:
    if options.precision == "int8":
        pytest.importorskip("nncf", reason="the package nncf is not installed")
    area = drawn_area(POLYGONS, WIDE, HIGH)
    pictures = (photograph(seed, junk=None if junk is None else junk + seed) for seed in range(12))
    frames = [read_as(options, picture) for picture in pictures]
    return Fit("cloth", frames[:6], frames[6:], options, ignore=area).run()


def read_as(options: FitOptions, data: bytes) -> Frame:
    return read_frame(data, options.size, tiled=options.tiles)


# Which pixels


def test_a_polygon_takes_the_pixels_whose_centres_lie_within() -> None:
    taken = np.zeros((6, 8), bool)
    fill(taken, ((1, 1), (4.6, 1), (4.6, 3), (1, 3)))
    assert np.argwhere(taken).tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3, 4)]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=3, max_size=7))
def test_any_polygon_is_filled_by_the_even_odd_rule(corners: list[tuple[int, int]]) -> None:
    taken = np.zeros((9, 12), bool)
    fill(taken, tuple((float(x), float(y)) for x, y in corners))
    for row, column in np.ndindex(taken.shape):
        x, y = column + 0.5, row + 0.5
        # A ray to the left crosses the outline an odd number of times.
        crossings = 0
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 <= y) != (y1 <= y):
                crossings += round(x0 + (y - y0) * (x1 - x0) / (y1 - y0), 6) <= x
        assert taken[row, column] == (crossings % 2 == 1)


@pytest.mark.parametrize(
    ("value", "form", "mode"),
    [(255, "PNG", None), (1, "PNG", None), (255, "BMP", "RGB"), (3, "BMP", None), (255, "PNG", "1"), (9, "PNG", "P")],
)
def test_a_mask_image_takes_what_is_not_zero(value: int, form: str, mode: str | None) -> None:
    area = masked_area(encoded(mask(value), form, mode), WIDE, HIGH)
    assert np.array_equal(area.mask_HW, mask() > 0)
    assert area.digest == drawn_area([CORNER], WIDE, HIGH).digest
    assert area.describe() == "18.0% of an image of 150 x 100 pixels is ignored (a mask image)"


@pytest.mark.parametrize(
    ("polygons", "words"),
    [
        (
            [CORNER, ((0, 0), (151, 0), (0, 50))],
            "polygon 2 has a corner at (151, 0), outside of the images, which have 150",
        ),
        ([((0, 0), (50, 50), (100, 100))], "polygon 1 encloses no pixel"),
        ([((3.1, 3.1), (3.2, 3.1), (3.1, 3.2))], "polygon 1 encloses no pixel"),
        ([((0, 0), (150, 0), (150, 100), (0, 100))], "every pixel is ignored"),
    ],
)
def test_polygons_that_cannot_be_meant_are_refused_in_words(polygons: list[Polygon], words: str) -> None:
    with pytest.raises(FitError) as refused:
        drawn_area(polygons, WIDE, HIGH)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encoded(mask()[:50]), "the mask has 150 x 50 pixels and the images have 150 x 100"),
        (encoded(mask(), "JPEG"), "the mask is a JPEG image; save it as PNG or BMP"),
        (encoded(mask(), "TIFF"), "the mask is a TIFF image"),
        (encoded(mask(), "PNG", "RGBA"), "partly transparent"),
        (encoded(mask(0)), "no pixel is ignored"),
        (encoded(np.full((HIGH, WIDE), 7, np.uint8)), "every pixel is ignored"),
        (encoded(mask())[:60], "can't be read"),
        (b"", "can't be read"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(FitError) as refused:
        masked_area(data, WIDE, HIGH)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("ignore", "words"),
    [
        ([], "a list of polygons"),
        ("", "a list of polygons"),
        ({"mask": "a.png"}, "a list of polygons"),
        ([[[0, 0], [1, 1]]], "polygon 1 needs at least 3 corners"),
        ([[0, 0], [9, 0], [9, 9]], "polygon 1 needs at least 3 corners"),
        ([[[0, 0], [9, 0], [9, 9, 9]]], "polygon 1 has the corner [9, 9, 9]"),
        ([[[0, 0], [9, 0], [9, float("nan")]]], "polygon 1 has the corner [9, nan]"),
        ([[[0, 0], [9, 0], [9, -1]]], "polygon 1 has the corner [9, -1]"),
    ],
)
def test_options_are_refused_in_words(ignore: object, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        FitOptions.model_validate({"ignore": ignore})
    assert words in str(refused.value)


@pytest.mark.parametrize("left", [np.s_[:1, :1], np.s_[5:8], np.s_[:, 0:3]])
def test_an_area_that_leaves_less_than_the_map_can_show_is_refused(left: tuple[slice, ...]) -> None:
    pixels = np.full((HIGH, WIDE), 255, np.uint8)
    pixels[left] = 0
    with pytest.raises(FitError, match="of the 16 x 16 cells of its map: what is left is too narrow"):
        masked_area(encoded(pixels), WIDE, HIGH).cover(SIDE, tiled=False)


# Where it lies on frames and maps


@pytest.mark.parametrize("tiled", [False, True])
def test_a_pixel_that_an_ignored_one_has_a_share_in_is_painted_over(tiled: bool) -> None:
    area = drawn_area(POLYGONS, WIDE, HIGH)
    cover = area.cover(SIDE, tiled)
    black = np.zeros((HIGH, WIDE, 3), np.uint8)
    lit = np.where(area.mask_HW[..., None], np.uint8(255), black)
    options = FitOptions(size=SIDE, tiles=tiled)
    one, other = (cover.painted(read_as(options, encoded(pixels))) for pixels in (black, lit))
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(cover.painted(one).pixels, one.pixels)
    assert cover.counted.shape == ((25, 38) if tiled else (16, 16))
    rows, columns = centre_pixels(cover.counted.shape[0], HIGH), centre_pixels(cover.counted.shape[1], WIDE)
    assert np.array_equal(cover.counted, ~area.mask_HW[np.ix_(rows, columns)])


def test_a_frame_of_an_image_of_another_size_is_not_painted() -> None:
    cover = drawn_area(POLYGONS, WIDE, HIGH).cover(SIDE, tiled=False)
    with pytest.raises(ValueError, match="150 x 100"):
        cover.painted(Frame(np.zeros((SIDE, SIDE, 3), np.uint8), 300, 200))


@given(st.integers(0, 2**32 - 1), st.integers(20, 150), st.integers(20, 150))
def test_masks_stay_out_and_hold_the_peak(seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    ignored = rng.random((height, width)) < 0.5
    ignored[: height // 3] = True
    ignored[-5:, -5:] = False
    cover = masked_area(encoded(ignored), width, height).cover(SIDE, tiled=False)
    anomaly = cover.cut_out(rng.random((16, 16)).astype(np.float32) * 3 + 1)
    peak = float(anomaly.max())
    scored = Scored(peak, peak, 1.0, "NotOK", anomaly, width, height, 0.9, 1.1, 0.8, ignored)
    found = cut(scored, min_area_px=1)
    assert not found.mask[ignored].any()
    assert found.regions[0].peak == pytest.approx(peak)
    assert (found.mask > 0).sum() == sum(region.area_px for region in found.regions)
    heat = decode_heat_png(encode_heat_png(scored))
    assert not heat[ignored].any()
    assert heat.max() == pytest.approx(peak, abs=1e-3)


# What it does to a model


def engine_of(bundle: ModelBundle, backend: str = "auto") -> Engine:
    return Engine(lambda _: bundle, device="cpu", backend=backend, threads=1)  # type: ignore[arg-type]


def score(engine: Engine, data: bytes) -> Scored:
    (one,) = engine.score([engine.manifest("a").read(data)], ["a"])
    return one


def test_nothing_in_the_area_moves_a_score_and_the_same_beside_it_does(fitted: ModelBundle) -> None:
    engine = engine_of(fitted)
    plain, junk, spot = (
        score(engine, data) for data in (photograph(50), photograph(50, junk=1), photograph(50, spot=True))
    )
    assert junk.score == plain.score
    assert np.array_equal(junk.anomaly_map, plain.anomaly_map)
    assert spot.score != plain.score
    cover = fitted.manifest.cover()
    assert cover
    assert not plain.anomaly_map[~cover.counted].any()
    assert plain.anomaly_map[cover.counted].all()
    assert plain.normalised_score == pytest.approx(float(plain.anomaly_map.max()))


@pytest.mark.parametrize("kind", ["resized", "tiles"])
def test_nothing_in_the_area_moves_a_fit(small_options: Callable[..., FitOptions], kind: str) -> None:
    bears = Tolerance(light=0.2, shift_px=5, turn_deg=3, blur_px=1, noise=2, jpeg=60)
    one, other = (fit(small_options(ignore=POLYGONS, tolerate=bears, **KINDS[kind]), junk) for junk in (None, 7))
    assert one.weights == other.weights
    assert one.manifest.calibration == other.manifest.calibration
    assert one.manifest.training.explained_variance == other.manifest.training.explained_variance


def test_both_backends_agree(small_options: Callable[..., FitOptions]) -> None:
    pytest.importorskip("openvino", reason="the package openvino is not installed")
    for kind in ("resized", "tiles"):
        bundle = fit(small_options(ignore=POLYGONS, **KINDS[kind]))
        one, other = (
            score(engine_of(bundle, name), photograph(51, junk=3, spot=True)) for name in ("torch", "openvino")
        )
        assert one.normalised_score == pytest.approx(other.normalised_score, abs=1e-4)
        assert np.mean(cut(one).mask != cut(other).mask) <= 1e-3


def test_the_threshold_is_placed_by_the_scores_that_serve(fitted: ModelBundle) -> None:
    engine = engine_of(fitted)
    highest = max(score(engine, photograph(seed, junk=seed)).score for seed in range(6, 12))
    assert highest == pytest.approx(fitted.manifest.calibration.heldout_maximum, rel=1e-4)


def test_products_with_and_without_an_area_share_a_batch(fitted: ModelBundle, bundle: ModelBundle) -> None:
    engine = Engine({"a": fitted, "b": bundle}.__getitem__, device="cpu", threads=1)
    keys = ["a", "b", "a"]
    frames = [engine.manifest(key).read(photograph(60 + number)) for number, key in enumerate(keys)]
    together = engine.score(frames, keys)
    for frame, key, expected in zip(frames, keys, together, strict=True):
        assert engine.score([frame], [key])[0].score == pytest.approx(expected.score, rel=1e-4)
    assert together[1].ignored is None


def test_an_image_of_another_size_is_refused_with_both_sizes(fitted: ModelBundle) -> None:
    with pytest.raises(SizeDiffers, match=r"75 x 50 pixels.* for 150 x 100"):
        fitted.manifest.read(encoded(np.zeros((50, 75, 3), np.uint8)))


def test_the_manifest_carries_the_area_and_one_without_ignores_nothing(fitted: ModelBundle) -> None:
    opened = ModelBundle.open(fitted.manifest_json(), fitted.weights)
    assert opened.manifest.ignore == drawn_area(POLYGONS, WIDE, HIGH)
    before = json.loads(fitted.manifest_json())
    del before["ignore"]
    old = ModelBundle.open(json.dumps(before).encode(), fitted.weights)
    assert old.manifest.ignore is None
    assert old.manifest.cover() is None
    assert old.manifest.read(encoded(np.zeros((50, 75, 3), np.uint8))).width == 75


def test_a_damaged_area_is_refused_with_its_manifest(fitted: ModelBundle) -> None:
    values = json.loads(fitted.manifest_json())
    drawn = json.loads(masked_area(encoded(mask()), WIDE, HIGH).model_dump_json())
    for damage in ({"mask_png": "????"}, {"mask_png": drawn["mask_png"][:80]}, {"width": 151}, {"polygons": [CORNER]}):
        values["ignore"] = {**drawn, **damage}
        with pytest.raises(BundleError, match="ignore"):
            ModelBundle.open(json.dumps(values).encode(), fitted.weights)
    values["ignore"] = drawn
    assert ModelBundle.open(json.dumps(values).encode(), fitted.weights).manifest.ignore == IgnoredArea(**drawn)
    assert Manifest.model_validate(values).ignore == IgnoredArea(**drawn)


def test_a_fit_refuses_images_of_several_sizes_and_options_without_their_area(
    good_frames: list[Frame], small_options: Callable[..., FitOptions]
) -> None:
    options = small_options(ignore=[[[0, 0], [100, 0], [0, 100]]])
    area = drawn_area([((0, 0), (100, 0), (0, 100))], 320, 240)
    other = Frame(good_frames[0].pixels, 640, 480)
    with pytest.raises(FitError, match=r"1 of 24 good images have another size \(one has 640 x 480"):
        Fit("disc", good_frames[:16], [*good_frames[16:23], other], options, ignore=area)
    with pytest.raises(ValueError, match="go together"):
        Fit("disc", good_frames[:16], good_frames[16:], options)
    with pytest.raises(ValueError, match="go together"):
        Fit("disc", good_frames[:16], good_frames[16:], small_options(), ignore=area)
