"""`linewatch bench reading`: how fast a fit's images come from S3, one by one, fetched ahead, or by Ray Data."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from infra.local import LocalServers
from jobs.drawing import draw_dataset
from jobs.fitting.datasets import Datasets, Item
from jobs.fitting.worker import FETCH_THREADS, fetched
from jobs.session.connect import make_store
from jobs.session.progress import Screen
from jobs.session.ray_session import ray_session
from model import FitOptions, Frame, ImageLimits, read_frame
from model.bench.machine import describe_machine
from pipeline.settings import Settings
from pipeline.storage.store import S3Store

PRODUCT, SIDE = "flange", 640
"""Pixels of the drawn JPEGs, which a fit brings to its own 256."""


def bench_reading(images: int, repeats: int, json_file: Path | None, command: str, screen: Screen) -> dict[str, Any]:
    """Draw images, put them to an embedded store, and read them each way in turn; the medians count."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(LocalServers.start(folder / "servers"))
        os.environ.update(servers.environment())
        settings = Settings.from_values({})
        with screen.step("Drawing images") as step:
            draw_dataset(folder, PRODUCT, train=images, good=0, defective=0, size=SIDE, on_image=step.advance)
        datasets = Datasets(make_store(settings))
        with screen.step("Bringing them to S3"):
            datasets.ingest(folder / PRODUCT / "train", PRODUCT, limits=ImageLimits())
        items = list(datasets.latest(PRODUCT).good)
        stack.enter_context(ray_session(settings))
        ways = _ways(settings, items)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        with screen.step("Reading", time_left=True) as step:
            for repeat in range(repeats):
                for number, (name, way) in enumerate(ways.items()):
                    step.advance(repeat * len(ways) + number, repeats * len(ways))
                    begun = time.monotonic()
                    read = sum(frame.shape == (FitOptions().size,) * 2 + (3,) for frame in way())
                    seconds[name].append(time.monotonic() - begun)
                    if read != len(items):
                        raise AssertionError(f"{name} read {read} of {len(items)} images")
    rates = {name: len(items) / median(found) for name, found in seconds.items()}
    report = {"command": command, "machine": describe_machine(), "images": len(items), "images_per_s": rates}
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    for name, rate in rates.items():
        screen.say(f"{name}: {rate:.0f} images/s, {rate / rates['one by one']:.2f} of one by one")
    return report


def _ways(settings: Settings, items: list[Item]) -> dict[str, Callable[[], Iterator[Any]]]:
    """Each gives the pixels of all images, uint8 [S, S, 3]."""
    datasets = Datasets(S3Store(settings.s3))

    def fetch(item: Item) -> Frame:
        return read_frame(datasets.image(PRODUCT, item), FitOptions().size)

    def ahead(threads: int) -> Callable[[], Iterator[Any]]:
        return lambda: (frame.pixels for frame in fetched(fetch, items, threads))

    return {
        "one by one": lambda: (fetch(item).pixels for item in items),
        **{f"fetched ahead by {threads}": ahead(threads) for threads in (2, FETCH_THREADS, 2 * FETCH_THREADS)},
        "Ray Data": lambda: _by_ray_data(settings.public(), items),
    }


def _by_ray_data(settings: dict[str, Any], items: list[Item]) -> Iterator[Any]:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items([{"item": item.model_dump(mode="json")} for item in items])

    def read(row: dict[str, Any]) -> dict[str, Any]:
        datasets = Datasets(S3Store(Settings.received(settings).s3))
        data = datasets.image(PRODUCT, Item.model_validate(row["item"]))
        return {"pixels": read_frame(data, FitOptions().size).pixels}

    for row in rows.map(read).iter_rows():
        yield row["pixels"]
