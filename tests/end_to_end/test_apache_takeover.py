"""How long cameras go without events: where a replica dies, and where all are replaced one at a time."""

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jobs.fitting.datasets import discover
from jobs.line.deploy import deploy
from jobs.line.follow import Follower, event_of
from jobs.line.replay import Camera
from tests.end_to_end.plant import SESSION_TIMEOUT_MS, Plant, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]
CAMERAS = 8
PER_S = 16.0


class Watch:
    """Cameras that take an image twice a second each, and when their events came."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._over = threading.Event()
        self.sent: set[str] = set()
        self.came: dict[str, list[float]] = defaultdict(list)
        self.seen: dict[str, int] = defaultdict(int)
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._take, self._follow)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _take(self) -> None:
        files = [file.path for file in discover(self._plant.images / "twill") if file.labelled]
        names = [f"/gap/cam{number}" for number in range(CAMERAS)]
        settings, store = self._plant.settings, self._plant.store
        cameras = [Camera(settings, store, product="twill", camera=name) for name in names]
        begun = time.monotonic()
        for number, camera in enumerate(itertools.cycle(cameras)):
            if self._over.wait(max(0.0, begun + number / PER_S - time.monotonic())):
                break
            self.sent.add(camera.send(files[number % len(files)]).image_id)
        for camera in cameras:
            camera.close()

    def _follow(self) -> None:
        with Follower(self._plant.settings, self._plant.settings.topics.events, from_beginning=False) as follower:
            while not self._over.is_set() or any(self.seen[one] == 0 for one in self.sent):
                for record in follower.poll(0.05):
                    event = event_of(record)
                    self.seen[event.image_id] += 1
                    self.came[event.camera].append(time.monotonic())

    def longest_gap_s(self, since: float) -> float:
        """Of any camera, from `since` until now."""
        now = time.monotonic()
        gaps = []
        for times in self.came.values():
            edges = [since, *(at for at in times if at > since), now]
            gaps += [after - before for before, after in itertools.pairwise(edges)]
        return max(gaps)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)


@contextmanager
def watching(plant: Plant) -> Iterator[Watch]:
    watch = Watch(plant)
    watch.start()
    try:
        wait_for("events of every camera", lambda: len(watch.came) == CAMERAS, 90)
        yield watch
    finally:
        watch.end()
    assert set(watch.seen) >= watch.sent
    assert {watch.seen[one] for one in watch.sent} == {1}, "each image one event, whatever happened"


def test_partitions_of_a_dead_replica_are_taken_over_in_time_and_a_roll_leaves_no_gap(apache_plant: Plant) -> None:
    settings = apache_plant.settings.with_serving({"replicas": 2})
    deploy(settings, apache_plant.session, exactly_once=True)
    wait_for("two replicas", lambda: len(apache_plant.replica_pids()) == 2, 120)
    with watching(apache_plant) as watch:
        killed_at = time.monotonic()
        apache_plant.kill_replica()
        time.sleep(2 * SESSION_TIMEOUT_MS / 1000 + 4)
        taken_over_s = watch.longest_gap_s(killed_at)
        wait_for("two replicas again", lambda: len(apache_plant.replica_pids()) == 2, 120)
        time.sleep(5)  # its successor has joined
        before = set(apache_plant.replica_pids())
        rolled_at = time.monotonic()
        deploy(settings, apache_plant.session, exactly_once=True, generation="next")
        wait_for("two other replicas", lambda: len(set(apache_plant.replica_pids()) - before) == 2, 180)
        time.sleep(5)
        rolled_s = watch.longest_gap_s(rolled_at)
    print(f"\nkilled: longest gap {taken_over_s:.2f} s; rolled: longest gap {rolled_s:.2f} s")  # noqa: T201
    assert taken_over_s <= SESSION_TIMEOUT_MS / 1000 + 3
    assert rolled_s <= 5
