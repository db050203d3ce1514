"""One image, three paths, one score: offline, REST and stream."""

import io
import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.datasets import Datasets, LocalImage
from jobs.demo.ledger import Ledger
from jobs.release import Releases
from jobs.replay import replay
from model import ImageLimits, cut
from pipeline.inspector import Inspector
from tests.end_to_end.plant import PRODUCTS, Plant, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "commutator_ksdd"


def test_offline_rest_and_stream_give_the_same_scores_and_masks(apache_plant: Plant) -> None:
    ledger = apache_plant.ledger()
    for product in PRODUCTS:
        apache_plant.send(ledger, product, fps=20, camera=f"/golden/{product}")
    ledger.settle()
    ledger.close()
    assert ledger.missing == 0
    assert ledger.without_mask() == 0
    check_golden(apache_plant, ledger)


@pytest.mark.parametrize("options", [{"tiles": True, "size": 96}, {"precision": "int8"}], ids=["tiles", "int8"])
def test_versions_with_tiles_and_in_int8_give_the_same_scores_and_masks(
    apache_plant: Plant, options: dict[str, object]
) -> None:
    product, releases = PRODUCTS[1], Releases(apache_plant.settings, apache_plant.store)
    version = apache_plant.fit(product, **options)[product]
    releases.consider(product, version, force=True)
    image = next(iter(sorted((apache_plant.images / product / "test" / "good").iterdir()))).read_bytes()
    wait_for("the new version", lambda: json.loads(rest(apache_plant, product, image))["model_version"] == version)
    ledger = apache_plant.ledger()
    apache_plant.send(ledger, product, fps=20, camera="/golden/other")
    ledger.settle()
    ledger.close()
    assert ledger.missing == 0
    assert {ledger.seen[image].event.model_version for image in ledger.sent} == {version}
    check_golden(apache_plant, ledger)
    releases.consider(product, apache_plant.versions[product], force=True)


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="no real photographs beside the checkout (../shared/data)")
def test_real_photographs_give_the_same_scores_and_masks(apache_plant: Plant) -> None:
    product = REAL.name
    Datasets(apache_plant.store).ingest(REAL / "train" / "good", product, limits=ImageLimits())
    version = apache_plant.fit(product)[product]
    Releases(apache_plant.settings, apache_plant.store).consider(product, version, force=True)
    files = [*sorted((REAL / "test" / "good").iterdir())[:10], *sorted((REAL / "test" / "crack").iterdir())[:20]]
    ledger = apache_plant.ledger()
    replay(
        apache_plant.settings,
        apache_plant.store,
        files,
        product=product,
        camera="/golden/real",
        fps=20,
        on_shot=lambda shot: ledger.send(shot, LocalImage(shot.path, shot.path.parent.name, labelled=True), product),
    )
    ledger.settle()
    ledger.close()
    assert ledger.missing == 0
    check_golden(apache_plant, ledger)


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
    with urllib.request.urlopen(f"{apache_plant.rest}/metrics", timeout=10) as response:
        assert b'linewatch_images_total{product="flange"' in response.read()
