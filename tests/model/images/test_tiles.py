"""Tiles: where they lie, how their maps become one, and that a product with tiles scores the same everywhere."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model import Engine, Fit, FitOptions, Frame, ModelBundle, cut, read_frame
from model.images.tiles import (
    MOST_TRAINING_TILES,
    OVERLAP,
    blended,
    padded,
    tile_starts,
    tiles,
    training_tiles,
    whole_maps,
)
from model.measures.probe import spoiled

SIDE = 64


def image(width: int, height: int, seed: int = 0) -> Frame:
    """A striped cloth with noise."""
    rng = np.random.default_rng(seed)
    stripes = 120 + 40 * np.sin(np.arange(width) / 5 + rng.uniform(0, 6))
    pixels = stripes[None, :, None] + rng.normal(0, 5, (height, width, 3))
    return Frame(np.clip(pixels, 0, 255).astype(np.uint8), width, height)


@given(st.integers(1, 1500), st.sampled_from([32, 64, 96, 256]))
def test_tiles_cover_an_axis_end_where_it_ends_and_overlap(length: int, side: int) -> None:
    length = padded(np.zeros((length, 1, 3), np.uint8), side).shape[0]
    starts = tile_starts(length, side)
    assert starts[0] == 0
    assert starts[-1] + side == length
    assert all(start % 4 == 0 for start in starts)
    for one, other in itertools.pairwise(starts):
        assert 0 < other - one <= side * (1 - OVERLAP) + 4
    assert len(starts) <= 1 + length / (side * (1 - OVERLAP))


def test_a_tile_is_a_cut_of_the_image_and_no_copy() -> None:
    frame = image(150, 100)
    pieces = tiles(frame, SIDE)
    assert len(pieces) == 6
    assert np.array_equal(pieces[0].pixels, frame.pixels[:SIDE, :SIDE])
    exact = image(SIDE * 2, SIDE)
    assert all(np.shares_memory(piece.pixels, exact.pixels) for piece in tiles(exact, SIDE))


def test_an_image_smaller_than_a_tile_is_one_padded_tile() -> None:
    (piece,) = tiles(image(30, 50), SIDE)
    assert piece.pixels.shape == (SIDE, SIDE, 3)
    assert (piece.pixels[60] == piece.pixels[49]).all()


@given(st.integers(1, 400), st.integers(1, 400))
def test_blending_keeps_a_smooth_map(height: int, width: int) -> None:
    """Tiles of one map, put together again, are that map: no seam, no shift."""
    rows, columns = (max(SIDE, -(-n // 4) * 4) // 4 for n in (height, width))
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    ramp = 1 + y / 7 + np.sin(x / 9)
    maps = [
        ramp[top // 4 : top // 4 + SIDE // 4, left // 4 : left // 4 + SIDE // 4]
        for top in tile_starts(rows * 4, SIDE)
        for left in tile_starts(columns * 4, SIDE)
    ]
    found = blended(maps, height, width, SIDE)
    assert found.shape == (-(-height // 4), -(-width // 4))
    assert np.allclose(found, ramp[: found.shape[0], : found.shape[1]], atol=1e-4)


def test_where_tiles_disagree_the_map_goes_over_without_a_step() -> None:
    found = blended([np.full((16, 16), 1.0), np.full((16, 16), 2.0)], SIDE, 112, SIDE)
    steps = np.abs(np.diff(found[0]))
    assert found[0, 0] == 1
    assert found[0, -1] == 2
    assert steps.max() < 0.35


def test_training_tiles_are_spread_over_all_images_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.images.tiles.MOST_TRAINING_TILES", 12)
    frames = [image(400, 300, seed) for seed in range(5)]
    chosen = training_tiles(frames, SIDE, seed=0)
    assert len(chosen) == 15  # three of each
    again, other = training_tiles(frames, SIDE, seed=0), training_tiles(frames, SIDE, seed=1)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(chosen, again, strict=True))
    assert not all(np.array_equal(a.pixels, b.pixels) for a, b in zip(chosen, other, strict=True))
    assert MOST_TRAINING_TILES >= 400


def test_maps_of_images_come_from_their_own_tiles() -> None:
    frames = [image(150, 100), image(60, 60), image(64, 130)]
    counts = [len(tiles(frame, SIDE)) for frame in frames]
    maps = [np.full((16, 16), float(index)) for index, count in enumerate(counts) for _ in range(count)]
    found = list(whole_maps(maps, frames, SIDE, True))
    assert [m.shape for m in found] == [(25, 38), (15, 15), (33, 16)]
    assert all(np.allclose(m, index) for index, m in enumerate(found))


@pytest.fixture(scope="module")
def tiled(small_options: Callable[..., FitOptions]) -> ModelBundle:
    frames = [image(150, 100, seed) for seed in range(12)]
    return Fit("cloth", frames[:6], frames[6:], small_options(tiles=True)).run()


def test_the_manifest_says_tiles_and_reads_images_at_full_size(tiled: ModelBundle) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image(150, 100).pixels).save(buffer, "PNG")
    opened = ModelBundle.open(tiled.manifest_json(), tiled.weights).manifest.preprocessing
    assert opened.read(buffer.getvalue()).pixels.shape == (100, 150, 3)
    assert read_frame(buffer.getvalue(), SIDE).pixels.shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_tiled_and_other_products_share_a_batch_and_score_as_alone(
    tiled: ModelBundle, bundle: ModelBundle, good_frames: list[Frame], backend: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="the package openvino is not installed")
    engine = Engine({"t": tiled, "r": bundle}.__getitem__, device="cpu", backend=backend, batch_size=4)  # type: ignore[arg-type]
    frames = [image(150, 100, 20), good_frames[0], image(70, 260, 21), good_frames[1]]
    keys = ["t", "r", "t", "r"]
    together = engine.score(frames, keys)
    assert [one.anomaly_map.shape for one in together] == [(25, 38), (16, 16), (65, 18), (16, 16)]
    for frame, key, expected in zip(frames, keys, together, strict=True):
        (alone,) = engine.score([frame], [key])
        assert alone.score == pytest.approx(expected.score, rel=1e-4)
    assert cut(together[2]).mask.shape == (260, 70)


def test_both_backends_agree_on_tiles(tiled: ModelBundle) -> None:
    pytest.importorskip("openvino", reason="the package openvino is not installed")
    frame = spoiled(image(150, 100, 30), np.random.default_rng(0), SIDE)[1]
    one, other = (
        Engine(lambda _: tiled, device="cpu", backend=name).score([frame], ["a"])[0]
        for name in ("torch", "openvino")  # type: ignore[arg-type]
    )
    assert one.normalised_score == pytest.approx(other.normalised_score, abs=1e-4)


def test_the_threshold_is_placed_by_whole_images(tiled: ModelBundle) -> None:
    engine = Engine(lambda _: tiled, device="cpu", backend="torch")
    held_out = [image(150, 100, seed) for seed in range(6, 12)]
    highest = max(one.score for one in engine.score(held_out, ["a"] * 6))
    assert highest == pytest.approx(tiled.manifest.calibration.heldout_maximum, rel=1e-4)
    assert tiled.manifest.calibration.heldout_images == 6


def test_a_resized_frame_is_refused_where_tiles_are_needed(tiled: ModelBundle) -> None:
    engine = Engine(lambda _: tiled, device="cpu", backend="torch")
    with pytest.raises(ValueError, match="tiled=True"):
        engine.score([Frame(np.zeros((SIDE, SIDE, 3), np.uint8), 150, 100)], ["a"])


@pytest.mark.parametrize("size", [96, 160])
def test_sides_that_halve_to_odd_numbers_fit(size: int) -> None:
    frames = [image(size, size, seed) for seed in range(12)]
    bundle = Fit("odd", frames[:6], frames[6:], FitOptions(size=size, steps=2, batch=4, corruptions=0)).run()
    (result,) = Engine(lambda _: bundle, device="cpu").score(frames[:1], ["a"])
    assert result.anomaly_map.shape == (size // 4, size // 4)
