"""A burst brings replicas, its end takes them off again, and every image is counted."""

import io
import time

import pytest
from rich.console import Console

from jobs.audit.run import run_audit
from jobs.audit.window import Window
from jobs.fitting.datasets import discover
from jobs.line.deploy import deploy
from jobs.line.replay import Camera
from jobs.session.progress import Screen
from tests.end_to_end.plant import Plant, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]
BURST = 2500


def test_replicas_go_up_on_lag_and_down_again(apache_plant: Plant) -> None:
    plant = apache_plant
    scaled = {"replicas": 1, "max_replicas": 3, "upscale_delay_s": 1.0, "downscale_delay_s": 5.0, "drain_s": 3.0}
    deploy(plant.settings.with_serving(scaled), plant.session, exactly_once=True)
    wait_for("one replica", lambda: len(plant.replica_pids()) == 1, 120)
    files = [file.path for file in discover(plant.images / "flange") if file.labelled]
    cameras = [Camera(plant.settings, plant.store, product="flange", camera=f"/burst/cam{n}") for n in range(8)]
    for number in range(BURST):
        cameras[number % len(cameras)].send(files[number % len(files)])
    for camera in cameras:
        camera.close()
    begun = time.monotonic()
    wait_for("more replicas", lambda: len(plant.replica_pids()) > 1, 90)
    up_s = time.monotonic() - begun
    wait_for("one replica again", lambda: len(plant.replica_pids()) == 1, 180)
    print(f"\nup after {up_s:.0f} s, down after {time.monotonic() - begun:.0f} s")  # noqa: T201
    deploy(plant.settings, plant.session, exactly_once=True)
    screen = Screen(Console(file=io.StringIO()))
    wait_for("all committed", lambda: run_audit(plant.settings, Window(), screen).total("pending") == 0, 120)
    audit = run_audit(plant.settings, Window(), screen)
    assert audit.total("images") >= BURST
    assert audit.right, audit.troubles
