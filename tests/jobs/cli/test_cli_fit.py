"""`linewatch fit` of several products: one that can't be fitted keeps no other from it."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.fitting.datasets import Datasets
from jobs.fitting.gate import Verdict
from model import ImageLimits, ModelBundle
from pipeline.fakes import MemoryStore
from pipeline.storage.registry import Registry
from tests.pipeline.tiny import publish, texture


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Commands find this store instead of S3."""
    store = MemoryStore()
    monkeypatch.setattr("jobs.session.connect.open_store", lambda _: store)
    return store


def bring(store: MemoryStore, product: str, count: int) -> None:
    folder = Path(f"photos-{product}")
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        (folder / f"{seed:03d}.png").write_bytes(texture(seed))
    Datasets(store).ingest(folder, product, limits=ImageLimits())


class Fits:
    """Several products' fits without Ray: those with images enough become versions."""

    def __init__(self, store: MemoryStore, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.bundle = store, bundle
        self.fitted: list[str] = []
        self.broken: dict[str, str] = {}
        self.considered: list[str] = []
        monkeypatch.setattr("jobs.fitting.fit.fit_products", self._fit)
        monkeypatch.setattr("jobs.session.ray_session.ray_session", lambda _: self)
        monkeypatch.setattr("jobs.fitting.release.Releases.consider", self._consider)

    def __enter__(self) -> None:
        self.fitted.append("Ray")

    def __exit__(self, *_: object) -> None:
        pass

    def _fit(self, _: Any, tasks: Any, *__: Any, on_failed: Any, on_note: Any) -> dict[str, str]:  # noqa: ARG002
        for product, reason in self.broken.items():
            on_failed(product, reason)
        self.fitted += [task.product for task in tasks]
        versions = {}
        for task in tasks:
            if task.product not in self.broken:
                held_out = [item.sha256 for item in Datasets(self.store).latest(task.product).good]
                facts = {"dataset_digest": task.digest, "heldout_sha256": held_out}
                versions[task.product] = publish(self.store, self.bundle, product=task.product, serve=False, **facts)
        return versions

    def _consider(self, product: str, *_: object, **__: object) -> Verdict:
        self.considered.append(product)
        return Verdict(True)


@pytest.fixture
def fits(store: MemoryStore, tiny_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> Fits:
    monkeypatch.setenv("LINEWATCH_ENGINE__DEVICE", "cpu")
    return Fits(store, tiny_bundle, monkeypatch)


def test_one_product_too_small_is_one_line_and_the_others_are_promoted(store: MemoryStore, fits: Fits) -> None:
    for product, count in {"a": 12, "b": 12, "c": 3}.items():
        bring(store, product, count)
    result = run("fit", "a", "b", "c")
    assert result.exit_code == 1
    assert fits.considered == ["a", "b"]
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert line == "Error: c can't be fitted: it has 3 different good images, and at least 10 are needed: ingest more"
    assert result.output.count("promoted") == 2


@pytest.mark.usefixtures("fits")
def test_the_held_out_images_that_set_the_threshold_are_named(store: MemoryStore, tiny_bundle: ModelBundle) -> None:
    bring(store, "a", 12)
    result = run("fit", "a")
    scores = tiny_bundle.manifest.heldout_scores
    names = [item.name for item in Datasets(store).latest("a").good]
    highest = names[scores.index(max(scores))]
    share = max(scores) / tiny_bundle.manifest.calibration.threshold
    assert f"the threshold was set by {highest} ({share:.2f} of it), " in result.output.replace("\n", " ")


def test_one_that_fails_in_the_run_is_one_line_too(store: MemoryStore, fits: Fits) -> None:
    for product in "abc":
        bring(store, product, 12)
    fits.broken = {"b": "the loss is nan"}
    result = run("fit", "a", "b", "c")
    assert result.exit_code == 1
    assert fits.considered == ["a", "c"]
    assert "Error: b can't be fitted: the loss is nan" in result.output.splitlines()


def test_ray_is_not_started_for_products_that_cannot_be_fitted(store: MemoryStore, fits: Fits) -> None:
    bring(store, "c", 3)
    result = run("fit", "c", "d")
    assert result.exit_code == 1
    assert fits.fitted == []
    assert [line.split(":")[1] for line in result.output.splitlines() if line.startswith("Error: ")] == [
        " c can't be fitted",
        " d can't be fitted",
    ]


def test_all_products_that_have_images_are_fitted(store: MemoryStore, fits: Fits) -> None:
    for product, count in {"a": 12, "b": 12, "c": 3}.items():
        bring(store, product, count)
    result = run("fit", "--all")
    assert result.exit_code == 1
    assert "c can't be fitted" in result.stderr
    assert fits.considered == ["a", "b"]


def test_what_was_fitted_from_the_same_images_is_left_out_if_asked(store: MemoryStore, fits: Fits) -> None:
    for product in "ab":
        bring(store, product, 12)
    assert run("fit", "--all", "--if-new").exit_code == 0
    bring(store, "b", 14)
    result = run("fit", "--all", "--if-new")
    assert result.exit_code == 0
    assert fits.considered == ["a", "b", "b"]
    (version,) = Registry(store).versions("a")
    assert f"a: no other images than those of {version}: not fitted again" in result.output.replace("\n", " ")
    assert run("fit", "a").exit_code == 0
    assert fits.considered == ["a", "b", "b", "a"], "unasked, it is fitted"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name products, or --all"),
        (("a", "--all"), "name products, or --all, not both"),
        (("--all",), "no product has images yet"),
    ],
)
def test_products_or_all(arguments: tuple[str, ...], words: str) -> None:
    result = run("fit", *arguments)
    assert result.exit_code in (1, 2)
    assert words in result.stderr
