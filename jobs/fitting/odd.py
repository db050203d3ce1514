"""The good images of a product that are most unlike the others, as a page to look at."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from jobs.fitting.area import ignored_area
from jobs.fitting.datasets import DatasetError, Datasets, Item, Snapshot
from jobs.report.pictures import data_uri, heat_layer
from model import FitOptions, ImageLimits, read_frame
from model.measures.oddness import LEAST_IMAGES, ODD, oddness

MOST_IMAGES = 2000
"""More are not looked at in one go: their features lie in memory."""
_TEMPLATES = Path(__file__).parent.parent / "report" / "templates"
_SIDE = 256


@dataclass(frozen=True, eq=False)
class Odd:
    """A good image, how odd it is (model/measures/oddness.py), and where."""

    item: Item
    z: float
    pixels: np.ndarray
    map_HW: np.ndarray


def oddest(
    datasets: Datasets,
    product: str,
    options: FitOptions,
    limits: ImageLimits,
    most: int,
    on_step: Callable[[int, int], None],
) -> tuple[list[Odd], int]:
    """The `most` odd ones, oddest first, and how many were looked at.

    Raises:
        DatasetError: there are too few images, or one can't be read.
    """
    snapshot = datasets.latest(product)
    items = sorted(snapshot.good, key=lambda item: item.sha256)[:MOST_IMAGES]
    if len(items) < LEAST_IMAGES:
        raise DatasetError(
            f"{product} has {len(items)} good images; what is odd among fewer than {LEAST_IMAGES} nobody can tell"
        )
    area = ignored_area(options, datasets, snapshot, limits)
    cover = area.cover(options.size, tiled=False) if area else None
    frames = []
    for item in items:
        frame = read_frame(datasets.image(product, item), options.size, limits, reading=options.reading)
        frames.append(cover.painted(frame) if cover else frame)
    found = oddness(frames, options.backbone, options.size, on_step=on_step)
    order = np.argsort(-found.z)[:most]
    return [Odd(items[at], float(found.z[at]), frames[at].pixels, found.maps[at]) for at in order], len(items)


def write_odd(path: Path, product: str, odd: list[Odd], looked_at: int) -> None:
    """One self-contained HTML file."""
    cases = []
    for one in odd:
        photo = Image.fromarray(one.pixels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        heat = heat_layer(one.map_HW).resize(photo.size)
        cases.append(
            {
                "name": one.item.name,
                "z": one.z,
                "odd": one.z >= ODD,
                "photo": data_uri(photo, "JPEG", quality=80),
                "heat": data_uri(heat, "WEBP", quality=80),
            }
        )
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("odd.html").render(product=product, cases=cases, looked_at=looked_at, limit=ODD)
    path.write_text(html, encoding="utf-8")


def without(snapshot: Snapshot, names: set[str]) -> Snapshot:
    """The snapshot without the good images of these names, or beginnings of their sha256.

    Raises:
        DatasetError: no good image is called so, or several are.
    """
    gone = set[str]()
    for name in sorted(names):
        meant = [item for item in snapshot.good if name in (item.name, Path(item.name).name)] or [
            item for item in snapshot.good if len(name) >= 8 and item.sha256.startswith(name)
        ]
        if len(meant) != 1:
            if meant:
                told = f"{len(meant)} good images are called {name!r}: give the whole name or the sha256"
            else:
                listed = f"'linewatch datasets show {snapshot.product} --images' lists them"
                told = f"no good image is called {name!r}: {listed}"
            raise DatasetError(told)
        gone.add(meant[0].sha256)
    return snapshot.model_copy(update={"good": tuple(item for item in snapshot.good if item.sha256 not in gone)})
