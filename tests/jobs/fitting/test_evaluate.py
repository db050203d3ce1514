"""Figures of a version on labelled images, by the path that serves it."""

from pathlib import Path

import numpy as np
import pytest

from jobs.fitting.datasets import DatasetError, Datasets
from jobs.fitting.evaluate import evaluate
from jobs.fitting.gate import Judge
from model import Engine, ImageLimits, ModelBundle
from pipeline.errors import UnknownVersion
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.stream.inspector import bundle_loader
from tests.jobs.fitting.test_truth import encoded
from tests.pipeline.tiny import SIDE, publish, texture

SETTINGS = Settings.from_values({"engine": {"device": "cpu", "threads": 1}})


@pytest.fixture
def store(tiny_bundle: ModelBundle) -> MemoryStore:
    """Four good ones to fit on; three good and three spotted ones to judge by, two of them with a mask."""
    root = Path("category")
    for place, seeds in {"train/good": range(4), "test/good": range(30, 33), "test/spot": range(40, 43)}.items():
        (root / place).mkdir(parents=True)
        for seed in seeds:
            (root / place / f"{seed:03d}.png").write_bytes(texture(seed, spot=place.endswith("spot")))
    (root / "ground_truth" / "spot").mkdir(parents=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[30:60, 30:60] = 255
    for seed in (40, 41):
        (root / "ground_truth" / "spot" / f"{seed:03d}_mask.png").write_bytes(encoded(mask))
    filled = MemoryStore()
    Datasets(filled).ingest(root, "bottle", limits=ImageLimits())
    publish(filled, tiny_bundle)
    return filled


def champion(store: MemoryStore) -> str:
    return Registry(store).champion("bottle").champion.version


def test_good_and_spotted_images_are_told_apart(store: MemoryStore) -> None:
    told: list[tuple[int, int]] = []
    result = evaluate(SETTINGS, store, "bottle", champion(store), lambda *progress: told.append(progress))
    assert (result.good, result.defective) == (3, 3)
    assert result.image_auroc == 1.0
    assert result.average_precision == 1.0
    assert result.pixel_auroc
    assert result.pixel_auroc > 0.9
    assert (result.false_reject_rate, result.escape_rate) == (0.0, 0.0)
    assert result.false_reject_interval == result.escape_interval == (0.0, pytest.approx(1 - 0.025 ** (1 / 3)))
    assert result.good_over_threshold == 0.0
    calibration = Registry(store).manifest("bottle", champion(store)).calibration
    assert result.stated_interval == calibration.false_reject_interval
    assert result.calibration == calibration.describe()
    assert 0 <= result.review_rate <= 1
    assert told[-1] == (6, 6)


def test_what_cannot_be_measured_is_none(store: MemoryStore) -> None:
    datasets = Datasets(store)
    snapshot = datasets.latest("bottle")
    only_good = snapshot.model_copy(update={"labelled": tuple(i for i in snapshot.labelled if i.kind == "good")})
    datasets._publish(only_good)
    store.objects[f"datasets/bottle/snapshots/{only_good.digest}.json"] = only_good.text()
    datasets.restore(only_good, instead_of=datasets.latest("bottle"))
    result = evaluate(SETTINGS, store, "bottle", champion(store))
    assert (result.image_auroc, result.average_precision, result.pixel_auroc, result.escape_rate) == (None,) * 4
    assert result.escape_interval is None
    assert result.false_reject_rate == 0.0


def test_no_labelled_images_say_how_to_bring_some(store: MemoryStore) -> None:
    Path("flat").mkdir()
    Path("flat/a.png").write_bytes(texture(1))
    Datasets(store).ingest(Path("flat"), "cap", limits=ImageLimits())
    with pytest.raises(DatasetError, match="MVTec layout"):
        evaluate(SETTINGS, store, "cap", champion(store))


def test_an_unknown_version_is_said_so(store: MemoryStore) -> None:
    with pytest.raises(UnknownVersion):
        evaluate(SETTINGS, store, "bottle", "20200101T000000Z-00000000")


def test_the_judge_sees_the_difference_between_good_and_spoiled(store: MemoryStore) -> None:
    datasets = Datasets(store)
    snapshot = datasets.latest("bottle")
    engine = Engine(bundle_loader(Registry(store)), device="cpu", threads=1)
    judge = Judge(engine, engine, datasets, SETTINGS)
    judged = judge.judge("bottle", champion(store), snapshot.good, snapshot.labelled)
    assert (judged.held_out, judged.false_reject_rate) == (4, 0.0)
    assert judged.synthetic_auroc > 0.5
    assert judged.labelled_auroc == 1.0
    images = [texture(50), texture(51, spot=True), texture(52)]
    assert judge.flagged("bottle", champion(store), images) == [1]
