"""A fleet of fits on a real Ray cluster: nodes die and come, and every product becomes a version."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import psutil
import pytest

from jobs.fitting.datasets import Datasets
from jobs.fitting.fit import fit_products, planned
from jobs.fitting.worker import CHECKPOINT_STEPS
from jobs.session.cluster import Nodes, ray_cluster
from jobs.session.progress import DONE, Beat
from jobs.session.ray_session import ray_session
from model import ImageLimits
from pipeline.settings import Product, Settings, Training
from pipeline.storage.registry import Registry
from pipeline.storage.store import S3Store
from tests.pipeline.tiny import texture

if TYPE_CHECKING:
    from tests.conftest import Plant

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore")]

PRODUCTS = ("bolt", "cap", "disc", "plate")
ALIVE = ("state", "=", "ALIVE")


def environment(settings: Settings) -> dict[str, str]:
    """Of nodes: each has that of whoever starts it, and tests begin without what the plant needs."""
    assert settings.s3.access_key is not None
    assert settings.s3.secret_key is not None
    return {
        "LINEWATCH_S3__ACCESS_KEY": settings.s3.access_key.get_secret_value(),
        "LINEWATCH_S3__SECRET_KEY": settings.s3.secret_key.get_secret_value(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }


@pytest.fixture(scope="module")
def cluster(tansu: "Plant", tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Nodes]]:
    """Four nodes with a processor each, and a head without."""
    settings = tansu.settings()
    ours = environment(settings)
    before = dict(os.environ)
    with ExitStack() as stack:
        stack.callback(lambda: _put_back(before))
        os.environ.update(ours)
        address, nodes = stack.enter_context(ray_cluster(4, 1, None, tmp_path_factory.mktemp("ray")))
        values = settings.public()
        values["serving"]["ray_address"] = address
        values["fit"] |= {"size": 64, "steps": 200, "batch": 8}
        settings = Settings.received(values)
        store = tansu.store(settings)
        for number, product in enumerate(PRODUCTS):
            folder = tmp_path_factory.mktemp(product)
            for seed in range(24 + number):
                (folder / f"{seed}.png").write_bytes(texture(1000 * number + seed))
            Datasets(store).ingest(folder, product, limits=ImageLimits())
        stack.enter_context(ray_session(settings))
        yield settings, nodes


def _put_back(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def test_four_products_side_by_side_outlive_a_node_and_use_one_that_comes(cluster: tuple[Settings, Nodes]) -> None:
    import ray
    from ray.util.state import list_actors

    settings, nodes = cluster
    store = S3Store(settings.s3)
    steps: dict[str, list[int]] = {product: [] for product in PRODUCTS}
    ended: list[str] = []
    notes: list[str] = []
    killed: list[str] = []

    def on_beat(beat: Beat) -> None:
        if beat.phase == DONE:
            ended.append(beat.product)
        if beat.phase != "training":
            return
        steps[beat.product].append(beat.step)
        if not killed and all(seen and seen[-1] > CHECKPOINT_STEPS + 10 for seen in steps.values()):
            (board,) = list_actors(address=settings.serving.ray_address, filters=[("class_name", "=", "Board"), ALIVE])
            assert board.node_id == ray.get_runtime_context().get_node_id(), "the end of another node is not its end"
            killed.append(nodes.kill(0.0))
            os.environ.update(environment(settings))
            nodes.add()

    tasks = [planned(settings, store, product) for product in PRODUCTS]
    versions = fit_products(settings, tasks, on_beat, "fleet", on_note=notes.append)
    assert killed, "all four were never in training at once"
    assert versions.keys() == set(PRODUCTS) == set(ended)
    for product, version in versions.items():
        assert Registry(store).manifest(product, version).training.steps == 200
    (note,) = notes
    set_back = [product for product, seen in steps.items() if sorted(seen) != seen]
    assert set_back == [note.split(":")[0]], "the others were not disturbed"
    seen = steps[set_back[0]]
    again = next(later for earlier, later in pairwise(seen) if later < earlier)
    assert again > CHECKPOINT_STEPS, "it went on from a checkpoint"

    # The same run again finds all done, and begins no fit.
    beats: list[Beat] = []
    assert fit_products(settings, tasks, beats.append, "fleet") == versions
    assert {beat.phase for beat in beats} == {DONE}


def test_two_workers_share_a_fit_beside_another_and_one_that_is_killed_costs_no_more_than_a_checkpoint(
    cluster: tuple[Settings, Nodes],
) -> None:
    settings, _ = cluster
    store = S3Store(settings.s3)
    steps_of_all = 2 * CHECKPOINT_STEPS + 20
    shared = settings.with_fit({"steps": steps_of_all}).model_copy(
        update={"products": {"plate": Product(fit={"workers": 2})}}
    )
    tasks = [planned(shared, store, product) for product in ("disc", "plate")]
    assert [task.workers for task in tasks] == [1, 2]
    steps: list[int] = []
    killed: list[psutil.Process] = []

    def on_beat(beat: Beat) -> None:
        if beat.product != "plate" or beat.phase != "training":
            return
        steps.append(beat.step)
        if not killed and beat.step > CHECKPOINT_STEPS + 10:
            ours = psutil.Process().children(recursive=True)
            killed.extend(one for one in ours if one.name().startswith("ray::RayTrain"))
            killed[0].kill()

    notes: list[str] = []
    versions = fit_products(shared, tasks, on_beat, on_note=notes.append)
    assert len(killed) == 2, "both were at work"
    assert [note.split(":")[0] for note in notes] == ["plate"], notes
    again = next(later for earlier, later in pairwise(steps) if later < earlier)
    assert again > CHECKPOINT_STEPS, "it went on from a checkpoint"
    manifest = Registry(store).manifest("plate", versions["plate"])
    assert manifest.training.steps == steps_of_all
    items = {item.sha256 for item in Datasets(store).latest("plate").good}
    assert manifest.training.images + len(manifest.heldout_sha256) == len(items)
    assert set(manifest.heldout_sha256) <= items
    assert len(manifest.heldout_scores) == len(manifest.heldout_sha256)


def test_what_there_is_no_room_for_is_told(cluster: tuple[Settings, Nodes]) -> None:
    settings, _ = cluster
    store = S3Store(settings.s3)
    failed: dict[str, str] = {}
    narrow = settings.with_fit({"workers": 4}).model_copy(update={"training": Training(fits=2)})
    task = planned(narrow, store, "plate")
    assert fit_products(narrow, [task], on_failed=failed.__setitem__) == {}
    assert "asks for 4 workers (fit.workers), and there is room for 2" in failed["plate"]
