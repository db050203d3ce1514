"""One image, three paths, one score: offline, REST and stream."""

import io
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.demo.ledger import Ledger
from jobs.fitting.datasets import GOOD, Datasets, LocalImage, discover
from jobs.fitting.fit import fit_products
from jobs.fitting.release import Releases
from jobs.fitting.task import Task
from jobs.line.deploy import metrics_addresses
from jobs.line.letters import pending_letters
from jobs.line.replay import replay
from model import ImageLimits, cut
from pipeline.settings import Settings
from pipeline.stream.inspector import Inspector
from tests.end_to_end.conftest import Plants
from tests.end_to_end.plant import PRODUCTS, Plant

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "commutator_ksdd"
CORNER = [[0, 0], [90, 0], [0, 90]]
OPTIONS: dict[str, dict[str, object]] = {
    "tiles": {"steps": 40, "tiles": True, "size": 96, "ignore": [CORNER]},
    "int8": {"steps": 40, "precision": "int8", "ignore": [CORNER]},
    "photographs": {"steps": 40},
    "mono12": {"steps": 40, "bit_depth": 12},
}


def test_offline_rest_and_stream_give_the_same_scores_and_masks(apache_plant: Plant) -> None:
    ledger = apache_plant.ledger()
    for product in PRODUCTS:
        apache_plant.send(ledger, product, fps=20, camera=f"/golden/{product}")
    ledger.settle()
    ledger.close()
    assert ledger.missing == 0
    assert ledger.without_mask() == 0
    check_golden(apache_plant, ledger)


@pytest.fixture(scope="module")
def others(plants: Plants) -> Plant:
    """The plant with the products of OPTIONS as well: one run of Ray Train for all of them costs less than three."""
    plant = plants.apache()
    in_twelve_bits(plant.images / "twill", plant.images / "mono12")
    values = {**plant.settings.public(), "products": {product: {"fit": fit} for product, fit in OPTIONS.items()}}
    settings = Settings.received(values)
    tasks = []
    for product in OPTIONS:
        if (folder := folder_of(product, plant)).is_dir():
            reading = settings.fit_options(product).reading
            good = folder / "train" / "good"
            report = Datasets(plant.store).ingest(good, product, limits=ImageLimits(), reading=reading)
            tasks.append(Task(product, report.snapshot.digest, None))
    for product, version in fit_products(settings, tasks).items():
        Releases(plant.settings, plant.store).consider(product, version, force=True)
    return plant


def in_twelve_bits(source: Path, target: Path) -> None:
    """A folder in MVTec layout again, as PNGs of 16 bits of which a camera fills 12."""
    for path in source.rglob("*.jpg"):
        gray = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        copy = (target / path.relative_to(source)).with_suffix(".png")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(gray << 4 | gray >> 4).save(copy)
    shutil.copytree(source / "ground_truth", target / "ground_truth", dirs_exist_ok=True)


@pytest.mark.parametrize("product", ["tiles", "int8", "mono12", pytest.param("photographs", marks=pytest.mark.data)])
def test_tiles_int8_12_bits_and_photographs_give_the_same_scores_and_masks(others: Plant, product: str) -> None:
    if not (folder := folder_of(product, others)).is_dir():
        pytest.skip(f"no real photographs beside the checkout ({folder})")
    labelled = [file for file in discover(folder) if file.labelled]
    good = [file for file in labelled if file.kind == GOOD][:10]
    sources = {file.path: file for file in [*good, *[file for file in labelled if file.kind != GOOD][:20]]}
    assert len(sources) >= 20
    ledger = others.ledger()
    replay(
        others.settings,
        others.store,
        list(sources),
        product=product,
        camera=f"/golden/{product}",
        fps=20,
        on_shot=lambda shot: ledger.send(shot, sources[shot.path], product),
    )
    ledger.settle()
    ledger.close()
    assert ledger.missing == 0
    version = others.registry.champion(product).champion.version
    assert {ledger.seen[image].event.model_version for image in ledger.sent} == {version}
    manifest = others.registry.manifest(product, version)
    assert manifest.preprocessing.tiles == (product == "tiles")
    assert (manifest.quantisation is not None) == (product == "int8")
    assert (manifest.ignore is not None) == (product in ("tiles", "int8"))
    assert manifest.preprocessing.reading.bit_depth == (12 if product == "mono12" else None)
    check_golden(others, ledger)


def test_an_8_bit_image_of_a_12_bit_product_is_a_dead_letter_with_the_reason(others: Plant) -> None:
    (path,) = sorted((others.images / "twill" / "test" / "good").glob("*.jpg"))[:1]
    source = LocalImage(path, GOOD, labelled=True)
    ledger = others.ledger()
    replay(
        others.settings,
        others.store,
        [path],
        product="mono12",
        camera="/golden/mono12",
        fps=20,
        on_shot=lambda shot: ledger.send(shot, source, "mono12"),
    )
    ledger.settle()
    ledger.close()
    (image,) = ledger.sent
    assert image in ledger.deadletters
    assert image not in ledger.seen
    (letter,) = pending_letters(others.settings, "DepthMismatch")
    assert letter.image_id == image
    assert "12 bits a sample (fit.bit_depth), this is one of 8" in letter.message
    with pytest.raises(urllib.error.HTTPError) as refused:
        rest(others, "mono12", path.read_bytes())
    with refused.value as answer:
        assert (answer.code, json.loads(answer.read())["error"]) == (422, "DepthMismatch")


def folder_of(product: str, plant: Plant) -> Path:
    if product == "mono12":
        return plant.images / product
    return REAL if product == "photographs" else plant.images / "twill"


def check_golden(plant: Plant, ledger: Ledger) -> None:
    """Every image of the ledger, offline and by REST: scores within 1e-4, masks within 0.01% of the pixels."""
    inspector = Inspector(plant.settings, plant.store)
    verdicts = set()
    for sent in ledger.sent.values():
        seen = ledger.seen[sent.shot.image_id]
        data = sent.source.path.read_bytes()
        key = f"{sent.product}/{seen.event.model_version}"
        scored = inspector.score([inspector.read(data, key)], [key])[0]
        mask = cut(scored).mask
        assert scored.ignored is None or not mask[scored.ignored].any()
        answer = json.loads(rest(plant, sent.product, data))
        assert abs(scored.normalised_score - seen.event.normalised_score) <= 1e-4
        assert abs(answer["normalised_score"] - seen.event.normalised_score) <= 1e-4
        assert answer["verdict"] == seen.event.verdict
        verdicts.add(answer["verdict"])
        for png in (seen.pictures["mask"], rest(plant, sent.product, data, accept="image/png")):
            other = np.asarray(Image.open(io.BytesIO(png)))
            assert other.shape == mask.shape
            assert np.mean(other != mask) <= 1e-4
    assert len(verdicts) > 1  # masks that are all empty would agree too


def rest(plant: Plant, product: str, data: bytes, accept: str = "application/json") -> bytes:
    url = f"{plant.rest}/v1/products/{product}/score"
    request = urllib.request.Request(url, data=data, headers={"accept": accept}, method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        return bytes(response.read())


@pytest.mark.parametrize(
    ("product", "data", "status"), [("nosuch", b"x", 404), ("flange", b"not an image", 422), ("flange", b"", 422)]
)
def test_rest_says_what_is_wrong(apache_plant: Plant, product: str, data: bytes, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        rest(apache_plant, product, data)
    with refused.value as answer:
        assert answer.code == status
        assert json.loads(answer.read())["message"]


def test_health_and_metrics_are_served(apache_plant: Plant) -> None:
    with urllib.request.urlopen(f"{apache_plant.rest}/healthz", timeout=10) as response:
        assert json.loads(response.read())["healthy"] is True
    (node,) = metrics_addresses(apache_plant.session, print)
    with urllib.request.urlopen(node, timeout=10) as response:
        assert b'linewatch_images_total{product="flange"' in response.read()
