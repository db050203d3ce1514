"""One product that can't be fitted keeps no other from it, in a run's loop as before it."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.fitting import fit, worker
from jobs.fitting.datasets import DatasetError, Datasets
from jobs.fitting.fit import FitJobError, fit_products, planned
from jobs.fitting.task import Outcomes, Task
from model import FitError, ImageLimits
from pipeline.errors import StoreUnavailable
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from tests.pipeline.tiny import texture

SETTINGS = Settings.from_values({})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore()
    for module in (fit, worker):
        monkeypatch.setattr(module, "S3Store", lambda _: store)
    for product, count in {"a": 12, "b": 12, "c": 3}.items():
        Path(product).mkdir()
        for seed in range(count):
            (Path(product) / f"{seed}.png").write_bytes(texture(seed))
        Datasets(store).ingest(Path(product), product, limits=ImageLimits())
    return store


def task(store: MemoryStore, product: str) -> Task:
    return Task(product, Datasets(store).latest(product).digest, None)


def test_a_fit_is_planned_where_there_are_images_enough(store: MemoryStore) -> None:
    assert planned(SETTINGS, store, "a") == task(store, "a")
    with pytest.raises(DatasetError, match="3 different good images, and at least 10"):
        planned(SETTINGS, store, "c")
    with pytest.raises(DatasetError, match="no images of 'd' yet"):
        planned(SETTINGS, store, "d")


def test_what_has_too_few_is_told_and_the_others_are_run(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(_: Settings, tasks: list[Task], *__: Any) -> tuple[dict[str, str], dict[str, str]]:
        ran.extend(one.product for one in tasks)
        return {"a": "v1"}, {"b": "its loss is infinite"}

    monkeypatch.setattr(fit, "_run", run)
    tasks, failed = [task(store, product) for product in "abc"], dict[str, str]()
    assert fit_products(SETTINGS, tasks, on_failed=failed.__setitem__) == {"a": "v1"}
    assert ran == ["a", "b"]
    assert failed.keys() == {"b", "c"}
    with pytest.raises(FitJobError, match=r"c can't be fitted: it has 3 .*; b can't be fitted: its loss"):
        fit_products(SETTINGS, tasks)


def test_no_run_is_begun_for_nothing(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_run", lambda *_: pytest.fail("Ray was started"))
    with pytest.raises(FitJobError, match="c can't be fitted"):
        fit_products(SETTINGS, [task(store, "c")])


class Worker:
    """The worker's loop with fits that end as told; reports are kept, and a new attempt goes on from the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: dict[str, list[str | Exception]]) -> None:
        self.ends, self.reports = ends, list[str]()
        self.begun: list[str] = []
        monkeypatch.setattr(worker, "_fit_one", self._fit_one)
        monkeypatch.setattr(worker, "_report", self._report)
        monkeypatch.setattr(worker, "_resume", lambda _: (self._last(), None))
        monkeypatch.setattr("ray.train.get_checkpoint", lambda: None)

    def attempt(self, attempts: int = 3) -> Outcomes:
        tasks = [{"product": product, "digest": "", "parent": None} for product in self.ends]
        settings = Settings.from_values({"training": {"attempts": attempts}}).public()
        worker.train({"settings": settings, "tasks": tasks, "board": None})
        return self._last()

    def _last(self) -> Outcomes:
        return Outcomes(**json.loads(self.reports[-1])) if self.reports else Outcomes()

    def _fit_one(self, _: Settings, __: Any, task: Task, *___: Any) -> str:
        self.begun.append(task.product)
        end = self.ends[task.product].pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def _report(self, outcomes: Outcomes, *_: Any) -> None:
        self.reports.append(json.dumps(vars(outcomes)))


@pytest.mark.parametrize("error", [FitError("too few"), DatasetError("an image is gone")])
@pytest.mark.usefixtures("store")
def test_a_fit_that_fails_is_noted_and_the_next_one_begins(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, {"a": ["v1"], "c": [error], "b": ["v2"]})
    outcomes = worker.attempt()
    assert (outcomes.done, outcomes.failed) == ({"a": "v1", "b": "v2"}, {"c": str(error)})


@pytest.mark.usefixtures("store")
def test_an_unforeseen_error_is_tried_once_more_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = ZeroDivisionError("a bug")
    worker = Worker(monkeypatch, {"a": ["v1"], "c": [bug, bug], "b": ["v2"]})
    with pytest.raises(ZeroDivisionError):
        worker.attempt()
    outcomes = worker.attempt()
    assert (outcomes.done, outcomes.failed) == ({"a": "v1", "b": "v2"}, {"c": "ZeroDivisionError: a bug"})
    assert worker.begun == ["a", "c", "c", "b"], "what was done is not done again"


@pytest.mark.usefixtures("store")
def test_an_unforeseen_error_is_final_where_no_attempt_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, {"c": [ZeroDivisionError("a bug")], "b": ["v2"]})
    assert worker.attempt(attempts=0).done == {"b": "v2"}


@pytest.mark.usefixtures("store")
def test_a_store_that_does_not_answer_is_no_fault_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, {"a": [StoreUnavailable("no answer"), "v1"]})
    with pytest.raises(StoreUnavailable):
        worker.attempt()
    assert worker.attempt().done == {"a": "v1"}
