"""`linewatch bench fleet`: what many fits at once take, beside one after another, and beside what a cluster could do.

Real fits side by side need real cores, of which a machine has few. So there are two measurements: real fits of drawn
products on this machine's cores, and fits that only wait on a cluster of many slots, which shows what the fleet itself
costs: the start of its lanes, its order, its board.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from infra.local import LocalServers
from jobs.drawing import draw_dataset
from jobs.fitting.datasets import Datasets
from jobs.fitting.fit import FitJobError, fit_products, planned
from jobs.fitting.fleet import Fleet
from jobs.fitting.task import Task
from jobs.session.cluster import ray_cluster
from jobs.session.connect import make_store
from jobs.session.progress import Screen
from jobs.session.ray_session import ray_session
from model import ImageLimits
from model.bench.machine import describe_machine
from pipeline.settings import Settings

SHORTEST, LONGEST = 0.4, 2.2
"""Fits that wait last so many times the mean, evenly drawn, for products differ in their images."""


@dataclass(frozen=True)
class Run:
    """What is measured. Real: products fitted with steps each, repeats times. Waiting: fits of seconds in the mean, on
    nodes with slots each.
    """

    products: int
    steps: int
    repeats: int
    nodes: int
    slots: int
    fits: int
    seconds: float


def bench_fleet(run: Run, json_file: Path | None, command: str, screen: Screen) -> dict[str, Any]:
    """Measure, write and show. Real fits in turn, one after another and side by side, on the same private Ray."""
    report: dict[str, Any] = {"command": command, "machine": describe_machine(), **asdict(run)}
    with _ray_environment():
        report["waiting"] = _waiting(run, screen)
        if run.products:
            report["real"] = _real(run, screen)
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    _show(report, run, screen)
    return report


def _waiting(run: Run, screen: Screen) -> dict[str, float]:
    def wait(config: dict[str, Any]) -> None:
        """A lane's loop whose fits are sleep. Within another function it travels as it is: a lane that imported this
        module would import torch, sixteen times on the cores of this one machine.
        """
        import ray

        board, lane = config["board"], config["lane"]
        while fields := ray.get(board.take.remote(lane)):
            time.sleep(fields["work"])
            ray.get(board.done.remote(lane, "none"))

    draws = random.Random(0)
    mean = (SHORTEST + LONGEST) / 2
    lengths = [run.seconds * draws.uniform(SHORTEST, LONGEST) / mean for _ in range(run.fits)]
    tasks = [Task(f"product-{number}", "", None, work=length) for number, length in enumerate(lengths)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, _ = stack.enter_context(ray_cluster(run.nodes, run.slots, None, folder))
        settings = Settings.received({"serving": {"ray_address": address}})
        session = stack.enter_context(ray_session(settings))
        on_beat = stack.enter_context(screen.fitting("Waiting", [task.product for task in tasks]))
        begun = time.monotonic()
        standing = Fleet(settings, session, tasks, "bench", wait, on_beat).run()
        seconds = time.monotonic() - begun
    if len(standing.done) < len(tasks):
        raise FitJobError(f"{len(standing.failed)} fits that wait failed: {next(iter(standing.failed.values()))}")
    return {"seconds": seconds, "work_s": sum(lengths), "efficiency": sum(lengths) / (run.nodes * run.slots) / seconds}


def _real(run: Run, screen: Screen) -> dict[str, Any]:
    """Seconds of all products, one at a time and as many as there are cores, each fit on one thread."""
    cores = os.cpu_count() or 1
    walls: dict[int, list[float]] = {1: [], cores: []}
    with tempfile.TemporaryDirectory() as name, LocalServers.start(Path(name) / "servers") as servers:
        os.environ.update(servers.environment())
        settings = Settings.from_values({"fit": {"steps": run.steps}, "training": {"cpus": 1}})
        store = make_store(settings)
        products = [f"flange-{number}" for number in range(run.products)]
        with screen.step("Drawing products") as step:
            for number, product in enumerate(products):
                folder = Path(name) / product
                draw_dataset(folder, "flange", train=64, good=1, defective=1, seed=number, size=256)
                Datasets(store).ingest(folder / "flange", product, limits=ImageLimits())
                step.advance(number + 1, len(products))
        with ray_session(settings):
            for _ in range(run.repeats):
                for fits, found in walls.items():
                    at_once = settings.model_copy(
                        update={"training": settings.training.model_copy(update={"fits": fits})}
                    )
                    tasks = [planned(at_once, store, product) for product in products]
                    begun = time.monotonic()
                    with screen.fitting(f"Fitting, {fits} at once", products) as on_beat:
                        fit_products(at_once, tasks, on_beat)
                    found.append(time.monotonic() - begun)
    one, many = (median(found) for found in walls.values())
    return {"cores": cores, "seconds": walls, "ratio": one / many, "efficiency": one / many / cores}


@contextmanager
def _ray_environment() -> Iterator[None]:
    """What nodes of a cluster inherit, and one token for all Rays of this process: Ray reads it once."""
    before = dict(os.environ)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_urlsafe(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _show(report: dict[str, Any], run: Run, screen: Screen) -> None:
    waiting = report["waiting"]
    screen.say(
        f"{run.fits} fits that wait {run.seconds:g} s in the mean, {run.nodes * run.slots} at once: "
        f"{waiting['seconds']:.0f} s, efficiency {waiting['efficiency']:.3f}"
    )
    if real := report.get("real"):
        screen.say(
            f"{run.products} real fits, {real['cores']} at once beside one after another: {real['ratio']:.2f} times as "
            f"fast, efficiency {real['efficiency']:.2f} of {real['cores']} cores"
        )
