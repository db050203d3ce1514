"""One product that can't be fitted keeps no other from it, in a run's loop as before it."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.fitting import fit, worker
from jobs.fitting.board import Board
from jobs.fitting.checkpoints import Checkpoints
from jobs.fitting.datasets import DatasetError, Datasets
from jobs.fitting.fit import FitJobError, fit_products, planned
from jobs.fitting.task import Task
from model import FitError, FitOptions, ImageLimits
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
    found = planned(SETTINGS, store, "a")
    assert replace(found, work=0.0) == task(store, "a")
    assert found.work > 0
    assert planned(SETTINGS.with_fit({"workers": 2}), store, "a") == replace(found, workers=2, work=found.work / 2)
    with pytest.raises(DatasetError, match="3 different good images, and at least 10"):
        planned(SETTINGS, store, "c")
    with pytest.raises(DatasetError, match="no images of 'd' yet"):
        planned(SETTINGS, store, "d")


def test_what_has_too_few_is_told_and_the_others_are_run(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(_: Settings, tasks: list[Task], *__: object) -> tuple[dict[str, str], dict[str, str]]:
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


class Actor:
    """The board in this process, called as an actor is."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._board, name))


class Lanes:
    """The worker's loop, lane after lane, with fits that end as told."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, ends: dict[str, list[str | Exception]], attempts: int = 3
    ) -> None:
        self.ends, self.begun = ends, list[str]()
        self.board = Board([vars(Task(product, "", None)) for product in ends], attempts)
        self._lanes = 0
        monkeypatch.setattr(worker, "_fit_one", self._fit_one)
        monkeypatch.setattr("ray.get", lambda value: value)

    def begin(self) -> None:
        self._lanes += 1
        config = {"settings": SETTINGS.public(), "threads": 1, "board": Actor(self.board), "run": "run"}
        worker.train({**config, "lane": f"lane-{self._lanes}"})

    def _fit_one(self, _: Settings, __: Any, task: Task, *___: Any) -> str:
        self.begun.append(task.product)
        end = self.ends[task.product].pop(0)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.mark.parametrize("error", [FitError("too few"), DatasetError("an image is gone")])
@pytest.mark.usefixtures("store")
def test_a_fit_that_fails_is_noted_and_the_next_one_begins(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(monkeypatch, {"a": ["v1"], "b": [error], "c": ["v2"]})
    lanes.begin()
    standing = lanes.board.standing()
    assert (standing.done, standing.failed) == ({"a": "v1", "c": "v2"}, {"b": str(error)})
    assert standing.over


@pytest.mark.usefixtures("store")
def test_an_unforeseen_error_is_tried_once_more_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = ZeroDivisionError("a bug")
    lanes = Lanes(monkeypatch, {"a": ["v1"], "b": [bug, bug], "c": ["v2"]})
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            lanes.begin()
    lanes.begin()
    standing = lanes.board.standing()
    assert (standing.done, standing.failed) == ({"a": "v1", "c": "v2"}, {"b": "ZeroDivisionError: a bug"})
    assert lanes.begun == ["a", "b", "b", "c"], "what was done is not done again"


@pytest.mark.usefixtures("store")
def test_an_unforeseen_error_is_final_where_no_attempt_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(monkeypatch, {"a": [ZeroDivisionError("a bug")], "b": ["v2"]}, attempts=0)
    with pytest.raises(ZeroDivisionError):
        lanes.begin()
    lanes.begin()
    assert lanes.board.standing().done == {"b": "v2"}
    assert lanes.board.standing().failed == {"a": "ZeroDivisionError: a bug"}


@pytest.mark.usefixtures("store")
def test_a_store_that_does_not_answer_is_no_fault_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(monkeypatch, {"a": [StoreUnavailable("no answer"), "v1"]})
    with pytest.raises(StoreUnavailable):
        lanes.begin()
    lanes.board.failed("lane-1", "no answer", final=False)  # what the fleet makes of a lane that died
    lanes.begin()
    assert lanes.board.standing().done == {"a": "v1"}


def test_a_run_goes_on_where_it_was_with_the_same_images_and_options_only(store: MemoryStore) -> None:
    options = FitOptions(steps=7)
    kept = Checkpoints(store, "run", task(store, "a"), options)
    assert (kept.version(), kept.state()) == (None, None)
    kept.save(b"half way")
    assert Checkpoints(store, "run", task(store, "a"), options).state() == b"half way"
    kept.finish("v1")
    assert (kept.version(), kept.state()) == ("v1", None)
    assert Checkpoints(store, "run", task(store, "a"), FitOptions(steps=8)).version() is None
    assert Checkpoints(store, "run", replace(task(store, "a"), digest="other"), options).version() is None
    assert Checkpoints(store, "another run", task(store, "a"), options).version() is None


@pytest.mark.parametrize("name", ["../models", "a/b", "-a", "a" * 81, "a b"])
def test_a_name_that_cannot_be_part_of_a_key_is_refused(name: str, store: MemoryStore) -> None:
    with pytest.raises(FitJobError, match="can't be the name of a run"):
        fit_products(SETTINGS, [task(store, "a")], run=name)


def test_frames_come_in_order_and_few_are_ahead() -> None:
    """However slow each is; and one that fails ends it."""
    asked: list[int] = []

    def fetch(item: int) -> int:
        asked.append(item)
        time.sleep(0.002 * (5 - item % 5))
        if item == 30:
            raise DatasetError("image 30 is gone")
        return item

    frames = worker.fetched(fetch, range(40), threads=3)  # type: ignore[arg-type, type-var]
    assert [next(frames) for _ in range(10)] == list(range(10))  # type: ignore[comparison-overlap]
    assert max(asked) <= 10 + 2 * 3
    with pytest.raises(DatasetError, match="image 30"):
        list(frames)
    assert max(asked) < 40
