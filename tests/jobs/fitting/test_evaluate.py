"""Figures of a version on labelled images, by the path that serves it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.fitting.datasets import DatasetError, Datasets
from jobs.fitting.evaluate import evaluate
from jobs.fitting.gate import Judge
from model import Engine, ImageLimits, ModelBundle, drawn_area, image_auroc, masked_area
from model.maps.resampling import upsample
from pipeline.errors import UnknownVersion
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.stream.inspector import Inspector, bundle_loader
from tests.jobs.fitting.datasets.test_masks import encoded
from tests.pipeline.tiny import SIDE, fitted, publish, texture

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
    datasets.write(only_good)
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
    assert judged.sensitivity > 0.5
    assert judged.labelled_auroc == 1.0
    images = [texture(50), texture(51, spot=True), texture(52)]
    assert judge.flagged("bottle", champion(store), images) == [1]


def ignoring(store: MemoryStore, bundle: ModelBundle, mask: np.ndarray) -> str:
    """The same model with an area that it ignores; its version."""
    return publish(store, bundle, ignore=masked_area(encoded(mask), SIDE, SIDE).model_dump())


def test_a_defect_that_lies_in_the_ignored_area_alone_is_in_no_figure(store: MemoryStore) -> None:
    """The third spotted image has no drawn truth, so it counts as it is labelled."""
    square = ((24.0, 24.0), (66.0, 24.0), (66.0, 66.0), (24.0, 66.0))  # resizing carries the spot over its own border
    version = publish(store, fitted(drawn_area([square], SIDE, SIDE)))
    result = evaluate(SETTINGS, store, "bottle", version)
    assert (result.good, result.defective, result.left_out) == (3, 1, 2)
    inspector, key = Inspector(SETTINGS, store), f"bottle/{version}"
    (left,) = inspector.score([inspector.read(texture(42, spot=True), key)], [key])
    assert left.verdict != "NotOK", "the spot is painted over"
    assert result.escape_rate == (left.verdict == "OK")
    assert result.pixel_auroc is None
    datasets = Datasets(store)
    snapshot = datasets.latest("bottle")
    engine = Engine(bundle_loader(Registry(store)), device="cpu", threads=1)
    judge = Judge(engine, engine, datasets, SETTINGS)
    with_truth = [item for item in snapshot.labelled if item.kind == "good" or item.mask_sha256]
    judged = judge.judge("bottle", champion(store), snapshot.good, with_truth)
    assert judged.labelled_auroc is None
    assert judged.sensitivity > 0.5


def test_a_defect_that_reaches_out_of_the_area_counts_and_pixels_within_do_not(
    store: MemoryStore, tiny_bundle: ModelBundle
) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, :40] = 1
    version = ignoring(store, tiny_bundle, mask)
    result = evaluate(SETTINGS, store, "bottle", version)
    assert (result.good, result.defective, result.left_out) == (3, 3, 0)
    inspector, key = Inspector(SETTINGS, store), f"bottle/{version}"
    values, truths = [], []
    for seed, spot in ((30, False), (31, False), (32, False), (40, True), (41, True)):
        (one,) = inspector.score([inspector.read(texture(seed, spot=spot), key)], [key])
        truth = np.zeros((SIDE, SIDE), bool)
        truth[30:60, 30:60] = spot
        values.append(upsample(one.anomaly_map, SIDE, SIDE)[:, 40:].ravel())
        truths.append(truth[:, 40:].ravel())
    assert result.pixel_auroc == pytest.approx(image_auroc(np.concatenate(values), np.concatenate(truths)), abs=1e-4)
    assert result.pixel_auroc > 0.8


def test_labelled_images_of_another_size_are_left_out_and_told(store: MemoryStore, tiny_bundle: ModelBundle) -> None:
    folder = Path("more/test/spot")
    folder.mkdir(parents=True)
    Path("more/train/good").mkdir(parents=True)
    Path("more/train/good/0.png").write_bytes(texture(0))
    pixels = np.asarray(Image.open(io.BytesIO(texture(70, spot=True))))
    (folder / "half.png").write_bytes(encoded(pixels[::2, ::2]))
    Datasets(store).ingest(Path("more"), "bottle", limits=ImageLimits())
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:9] = 1
    version = ignoring(store, tiny_bundle, mask)
    assert evaluate(SETTINGS, store, "bottle", version).left_out == 1
    one_only = Datasets(store).latest("bottle").model_copy(update={"product": "cap"})
    small = one_only.model_copy(update={"labelled": tuple(i for i in one_only.labelled if i.name.endswith("half.png"))})
    assert len(small.labelled) == 1
    Datasets(store).publish("cap", lambda _: small)
    store.objects[f"datasets/cap/images/{small.labelled[0].sha256}"] = encoded(pixels[::2, ::2])
    with pytest.raises(DatasetError, match="another size"):
        evaluate(SETTINGS, store, "cap", publish(store, tiny_bundle, "cap", ignore=manifest_area(store, version)))


def manifest_area(store: MemoryStore, version: str) -> object:
    ignore = Registry(store).manifest("bottle", version).ignore
    assert ignore
    return ignore.model_dump()
