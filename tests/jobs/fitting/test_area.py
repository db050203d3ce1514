"""From the setting to the area on a product's images, before a fit begins."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.fitting.area import ignored_area
from jobs.fitting.datasets import DatasetError, Datasets, Snapshot
from jobs.fitting.fit import with_area
from jobs.fitting.task import Task
from jobs.fitting.worker import load_frames
from model import FitOptions, IgnoredArea, ImageLimits
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from tests.jobs.fitting.datasets.test_masks import encoded
from tests.pipeline.tiny import SIDE, texture

LIMITS = ImageLimits()
HALF = np.zeros((SIDE, SIDE), np.uint8)
HALF[:, : SIDE // 2] = 255


@pytest.fixture
def datasets() -> Datasets:
    Path("good").mkdir()
    for seed in range(3):
        Path(f"good/{seed}.png").write_bytes(texture(seed))
    found = Datasets(MemoryStore())
    found.ingest(Path("good"), "bottle", limits=LIMITS)
    return found


def asked(datasets: Datasets, ignore: object) -> IgnoredArea | None:
    options = FitOptions.model_validate({"ignore": ignore})
    return ignored_area(options, datasets, datasets.latest("bottle"), LIMITS)


def test_polygons_and_a_mask_give_the_same_area_on_the_products_images(datasets: Datasets) -> None:
    Path("mask.png").write_bytes(encoded(HALF))
    drawn = asked(datasets, [[[0, 0], [SIDE / 2, 0], [SIDE / 2, SIDE], [0, SIDE]]])
    masked = asked(datasets, "mask.png")
    assert drawn
    assert masked
    assert (drawn.width, drawn.height) == (masked.width, masked.height) == (SIDE, SIDE)
    assert np.array_equal(drawn.mask_HW, HALF > 0)
    assert drawn.digest == masked.digest
    # What travels to a worker says the same there.
    assert IgnoredArea.model_validate(masked.model_dump(mode="json")) == masked
    assert asked(datasets, None) is None


@pytest.mark.parametrize(
    ("ignore", "words"),
    [
        ("nowhere.png", "bottle: fit.ignore nowhere.png can't be read: No such file"),
        (
            "small.png",
            f"bottle: fit.ignore small.png: the mask has 48 x {SIDE} pixels and the images have {SIDE} x {SIDE}",
        ),
        ("point.png", "of the 64 x 64 cells of its map: what is left is too narrow"),
        ([[[0, 0], [SIDE + 1, 0], [0, 9]]], f"bottle: fit.ignore: polygon 1 has a corner at ({SIDE + 1}, 0)"),
    ],
)
def test_an_area_that_does_not_fit_the_images_is_refused_before_the_fit(
    datasets: Datasets, ignore: object, words: str
) -> None:
    Path("small.png").write_bytes(encoded(HALF[:, ::2]))
    point = np.full((SIDE, SIDE), 255, np.uint8)
    point[1, 1] = 0
    Path("point.png").write_bytes(encoded(point))
    with pytest.raises(DatasetError) as refused:
        asked(datasets, ignore)
    assert words in str(refused.value)


def test_a_task_carries_its_products_own_area_to_the_worker(datasets: Datasets) -> None:
    Path("mask.png").write_bytes(encoded(HALF))
    settings = Settings.from_values({"products": {"bottle": {"fit": {"ignore": "mask.png"}}}})
    task = Task("bottle", datasets.latest("bottle").digest, None)
    carried = with_area(settings, datasets._store, task).ignore
    Path("mask.png").unlink()
    assert np.array_equal(IgnoredArea.model_validate(json.loads(json.dumps(carried))).mask_HW, HALF > 0)
    assert with_area(Settings.from_values({}), datasets._store, task) == task


def test_a_good_image_of_another_size_is_named(datasets: Datasets) -> None:
    area = asked(datasets, [[[0, 0], [20, 0], [0, 20]]])
    Path("good/odd.png").write_bytes(encoded(HALF[:, ::2]))
    datasets.ingest(Path("good"), "bottle", limits=LIMITS)
    settings, options = Settings.from_values({}), FitOptions(size=64)
    snapshot = datasets.latest("bottle")
    with pytest.raises(DatasetError, match=rf"the good image .*odd\.png has 48 x {SIDE} pixels"):
        load_frames(datasets, snapshot, options, settings, area)
    assert sum(len(frames) for frames in load_frames(datasets, snapshot, options, settings)[:2]) == 4


def test_a_product_without_images_is_said_so(datasets: Datasets) -> None:
    with pytest.raises(DatasetError, match="no good image"):
        ignored_area(FitOptions(ignore="a.png"), datasets, Snapshot(product="cap"), LIMITS)
