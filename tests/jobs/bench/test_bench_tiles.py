"""Mosaics with small defects: what is drawn, and that both ways are measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.bench.tiles import DEFECT_PX, MosaicRun, bench_tiles, mosaic, with_defects
from jobs.fitting.datasets import DatasetError
from jobs.session.progress import Screen
from model import FitOptions


@pytest.fixture
def category(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        (tmp_path / part / "good").mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(90, 130, (100 + 20 * number, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / "good" / f"{number}.png")
    return tmp_path


def test_a_mosaic_is_filled_with_photographs_at_their_own_scale(category: Path) -> None:
    files = sorted((category / "train" / "good").iterdir())
    found = mosaic(files, 256, np.random.default_rng(0))
    assert found.shape == (256, 256, 3)
    assert found.min() >= 90  # no gap
    corners = [np.asarray(Image.open(file))[:50, ::step][:, :90] for file in files for step in (1, -1)]
    assert any(np.array_equal(found[:50, :90], corner) for corner in corners)


def test_defects_are_where_the_mask_says_and_of_the_stated_size() -> None:
    ground = np.full((400, 500, 3), 120, np.uint8)
    areas = []
    for seed in range(30):
        spoiled, mask = with_defects(ground, np.random.default_rng(seed))
        changed = np.abs(spoiled.astype(int) - ground).max(axis=2) > 0
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.9
        areas.append(mask.sum())
    round_stain = np.pi * (DEFECT_PX / 2) ** 2
    assert 0.1 * round_stain < np.median(areas) < 3 * round_stain


def test_both_ways_are_measured_on_the_same_mosaics(category: Path, tmp_path: Path) -> None:
    options = FitOptions(size=128, steps=2, batch=4, corruptions=0)
    run = MosaicRun(category, side=320, train=10, test=3, options=options)
    report = bench_tiles(run, tmp_path / "tiles.json", "linewatch bench tiles", Screen())
    assert json.loads((tmp_path / "tiles.json").read_text()) == report
    assert report["tiles"] != report["resized"]
    for name in ("image_auroc", "pixel_auroc", "aupro"):
        assert 0 <= report["resized"][name] <= 1
        assert report["tiles_ahead"][name] == pytest.approx(report["tiles"][name] - report["resized"][name], abs=1e-6)


def test_a_folder_without_photographs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="layout of MVTec AD"):
        bench_tiles(MosaicRun(tmp_path), None, "linewatch bench tiles", Screen())
