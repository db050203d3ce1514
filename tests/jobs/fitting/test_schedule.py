"""A due run happens once, in its turn, and what it meets doesn't stop the next."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.fitting import schedule
from jobs.fitting.datasets import DatasetError, Datasets
from jobs.fitting.schedule import Outcome, Schedule, _named_weekdays, retrain
from model import ModelBundle, drawn_area
from pipeline.errors import SettingsError
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from tests.jobs.fitting.datasets.test_masks import encoded
from tests.pipeline.tiny import SIDE, publish, texture


def settings(**products: dict[str, Any]) -> Settings:
    return Settings.from_values({"products": products, "engine": {"device": "cpu", "threads": 1}})


@pytest.mark.parametrize("cron", [" ", "soon", "* * * *", "61 * * * *", "* * * * * * *", "61 * * * * *", "0 25 * * *"])
def test_a_cron_that_is_none_is_one_line_that_names_the_product(cron: str) -> None:
    with pytest.raises(SettingsError, match=r"products\.bottle\.cron") as caught:
        Schedule(settings(bottle={"cron": cron}), MemoryStore(), on_outcome=print)
    assert "\n" not in str(caught.value)


def test_nothing_scheduled_says_how_to_schedule() -> None:
    with pytest.raises(SettingsError, match="give a product a cron"):
        Schedule(settings(bottle={}), MemoryStore(), on_outcome=print)


@pytest.fixture
def run_now(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Outcome]]]:
    """Makes every product due at once, with ``retrain`` replaced; gives the outcomes."""
    opened: list[Schedule] = []

    def run(act: Callable[..., Outcome], **products: dict[str, Any]) -> list[Outcome]:
        monkeypatch.setattr(schedule, "retrain", act)
        outcomes: list[Outcome] = []
        done = threading.Semaphore(0)

        def keep(outcome: Outcome) -> None:
            outcomes.append(outcome)
            done.release()

        running = Schedule(settings(**products), MemoryStore(), on_outcome=keep)
        opened.append(running)
        running.start()
        for job in running._scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC))
        for _ in products:
            assert done.acquire(timeout=10)
        return outcomes

    yield run
    for running in opened:
        running.close()


def test_a_due_run_happens_once_and_the_next_is_as_the_cron_says(run_now) -> None:
    outcomes = run_now(lambda *args: Outcome(args[2], "promoted"), bottle={"cron": "0 3 1 1 *"})
    assert [(one.product, one.status) for one in outcomes] == [("bottle", "promoted")]


def test_a_run_that_fails_is_told_and_the_next_comes_all_the_same(run_now) -> None:
    def act(*args: Any) -> Outcome:
        if args[2] == "bottle":
            raise DatasetError("no images of 'bottle' yet")
        if args[2] == "cap":
            raise ZeroDivisionError("a bug")
        return Outcome(args[2], "promoted")

    cron = {"cron": "0 3 1 1 *"}
    outcomes = {one.product: one for one in run_now(act, bottle=cron, cap=cron, lid=cron)}
    assert {name: one.status for name, one in outcomes.items()} == {
        "bottle": "failed",
        "cap": "failed",
        "lid": "promoted",
    }
    assert outcomes["bottle"].reasons == ["no images of 'bottle' yet"]
    assert outcomes["cap"].reasons == ["ZeroDivisionError: a bug"]


def test_runs_come_one_at_a_time(run_now) -> None:
    busy = threading.Lock()

    def act(*args: Any) -> Outcome:
        assert busy.acquire(blocking=False), "two runs at once"
        threading.Event().wait(0.1)
        busy.release()
        return Outcome(args[2], "promoted")

    outcomes = run_now(act, **{name: {"cron": "0 3 1 1 *"} for name in ("bottle", "cap", "lid")})
    assert [one.status for one in outcomes] == ["promoted"] * 3


def test_only_products_with_a_cron_are_scheduled() -> None:
    running = Schedule(settings(bottle={"cron": "0 3 * * *"}, cap={"source": "x"}), MemoryStore(), on_outcome=print)
    running.start()
    try:
        assert list(running.next_runs()) == ["bottle"]
        assert running.next_runs()["bottle"].hour == 3
    finally:
        running.close()


def test_an_outcome_is_one_line() -> None:
    outcome = Outcome("bottle", "refused", "v", new_images=4, refused_files=1, reasons=["a", "b"])
    assert outcome.line() == "bottle: refused v (4 new images, 1 unreadable): a; b"
    assert Outcome("bottle", "nothing new").line() == "bottle: nothing new (0 new images)"
    assert Outcome("bottle", "nothing new", left_out=3).line() == "bottle: nothing new (0 new images, 3 left out)"


class Retraining:
    """``retrain`` with a real gate, registry and dataset, and a fit that hands out the model that is there."""

    def __init__(self, tiny_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = MemoryStore()
        self.datasets, self.registry = Datasets(self.store), Registry(self.store)
        self.source = Path("source")
        self.source.mkdir()
        self.fits = 0
        self.ignore: dict[str, Any] | None = None
        self._bundle = tiny_bundle
        monkeypatch.setattr(schedule, "fit_products", self._fit)
        monkeypatch.setattr("jobs.fitting.release.announce", lambda *_: None)

    def bring(self, *seeds: int, spot: bool = False) -> None:
        for seed in seeds:
            (self.source / f"{seed:03d}.png").write_bytes(texture(seed, spot=spot))

    def run(self) -> Outcome:
        return retrain(settings(bottle={"source": str(self.source)}), self.store, "bottle")

    def champion(self) -> str | None:
        alias = self.registry.champion_or_none("bottle")
        return alias.champion.version if alias else None

    def _fit(self, _: Settings, tasks: Any, __: Any) -> dict[str, str]:
        (task,) = tasks
        self.fits += 1
        held_out = [item.sha256 for item in self.datasets.snapshot("bottle", task.digest).good]
        facts = SimpleNamespace(dataset_digest=task.digest, heldout_sha256=held_out, ignore=self.ignore)
        return {"bottle": publish(self.store, self._bundle, serve=False, **vars(facts))}


@pytest.fixture
def line(tiny_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> Retraining:
    return Retraining(tiny_bundle, monkeypatch)


def test_the_first_run_fits_and_promotes_and_the_second_finds_nothing_new(line: Retraining) -> None:
    line.bring(*range(100, 108))
    first = line.run()
    assert (first.status, first.new_images, first.version) == ("promoted", 8, line.champion()), first.line()
    second = line.run()
    assert (second.status, second.new_images, line.fits) == ("nothing new", 0, 1)


def test_new_good_images_lead_to_a_new_champion(line: Retraining) -> None:
    line.bring(*range(100, 108))
    line.run()
    old = line.champion()
    line.bring(120, 121)
    outcome = line.run()
    assert (outcome.status, outcome.new_images) == ("promoted", 2), outcome.line()
    assert line.champion() not in (old, None)


def test_spoiled_images_are_refused_before_a_fit_and_left_out_of_the_next(line: Retraining) -> None:
    line.bring(*range(100, 108))
    line.run()
    champion, snapshot = line.champion(), line.datasets.latest("bottle")
    line.bring(200, 201, 202, spot=True)
    outcome = line.run()
    assert outcome.status == "refused"
    assert "3 of 3 new images defective" in outcome.line()
    assert (line.champion(), line.fits, line.datasets.latest("bottle")) == (champion, 1, snapshot)


def test_images_of_another_size_than_the_champions_ignored_area_are_refused_before_a_fit(line: Retraining) -> None:
    line.ignore = drawn_area([((0, 0), (20, 0), (0, 20))], SIDE, SIDE).model_dump()
    line.bring(*range(100, 108))
    assert line.run().status == "promoted"
    (line.source / "small.png").write_bytes(
        encoded(np.arange((SIDE // 2) ** 2, dtype=np.uint8).reshape(SIDE // 2, SIDE // 2))
    )
    outcome = line.run()
    assert outcome.status == "refused"
    assert f"can't judge the new images: the image has {SIDE // 2} x {SIDE // 2} pixels" in outcome.line()
    assert line.fits == 1


def test_blank_images_that_come_with_good_ones_speak_against_them(line: Retraining) -> None:
    line.bring(*range(100, 108))
    line.run()
    line.bring(120, 121)
    for name in ("dark.png", "bright.png"):
        Image.new("RGB", (64, 64), (len(name), 0, 0)).save(line.source / name)
    outcome = line.run()
    assert outcome.status == "refused"
    assert "0 of 2 new images defective, and 2 more show nothing (50%" in outcome.line()
    assert line.fits == 1
    for name in ("dark.png", "bright.png"):
        (line.source / name).unlink()
    assert line.run().status == "promoted", "the same images without the blank ones"


def test_unreadable_files_are_counted(line: Retraining) -> None:
    line.bring(*range(100, 108))
    (line.source / "broken.png").write_bytes(b"x")
    (line.source / "other.gif").write_bytes(b"x")
    (line.source / "Thumbs.db").write_bytes(b"x")
    outcome = line.run()
    assert (outcome.refused_files, outcome.left_out) == (1, 1)


def test_a_missing_source_is_an_error_that_names_it(line: Retraining) -> None:
    line.source.rmdir()
    with pytest.raises(DatasetError, match="source"):
        line.run()


@pytest.mark.parametrize(
    ("weekdays", "names"),
    [
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon,tue,wed,thu,fri"),
        ("1-5/2", "mon,wed,fri"),
        ("0-6", "sun,mon,tue,wed,thu,fri,sat"),
        ("fri-mon", "fri,sat,sun,mon"),
        ("sat,sun", "sat,sun"),
        ("*/3", "sun,wed,sat"),
    ],
)
def test_weekdays_mean_what_cron_says(weekdays: str, names: str) -> None:
    assert _named_weekdays(f"0 3 * * {weekdays}").split()[4] == names


def test_six_fields_begin_with_seconds() -> None:
    running = Schedule(settings(bottle={"cron": "15 30 3 * * 0"}), MemoryStore(), on_outcome=print)
    running.start()
    try:
        due = running.next_runs()["bottle"]
    finally:
        running.close()
    assert (due.hour, due.minute, due.second, due.strftime("%a")) == (3, 30, 15, "Sun")


@pytest.mark.parametrize("weekdays", ["8", "someday", "1-", "mon-xyz", "1/0"])
def test_a_weekday_that_is_none_is_refused(weekdays: str) -> None:
    with pytest.raises(ValueError, match="weekday"):
        _named_weekdays(f"0 3 * * {weekdays}")
