"""What the demo inspects: products that it draws, or folders in MVTec layout."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from jobs.drawing import PRODUCTS, background, draw_dataset
from jobs.fitting.datasets import GOOD, DatasetError, LocalImage, discover
from pipeline.contracts.names import product_name

DRAWN_TRAIN, DRAWN_GOOD, DRAWN_DEFECTIVE = 180, 40, 42
LATER_SHARE = 0.1


@dataclass(frozen=True)
class DemoProduct:
    """Folders of one product: images known from the start, good ones that come later, and what the camera sees.

    ignore: a mask image of the background, where there is one.
    """

    name: str
    known: Path
    later: Path
    shots: tuple[LocalImage, ...]
    ignore: Path | None = None


def drawn_products(folder: Path, seed: int, on_image: Callable[[int, int], None]) -> list[DemoProduct]:
    """Draw the demo's own products into ``folder``."""
    each = DRAWN_TRAIN + DRAWN_GOOD + DRAWN_DEFECTIVE
    for number, name in enumerate(PRODUCTS):
        draw_dataset(
            folder / "drawn",
            name,
            train=DRAWN_TRAIN,
            good=DRAWN_GOOD,
            defective=DRAWN_DEFECTIVE,
            seed=seed,
            on_image=lambda done, _, base=number * each: on_image(base + done, each * len(PRODUCTS)),  # type: ignore[misc]
        )
    return [
        replace(_stage(folder / "drawn" / name, folder / "staged"), ignore=_background(folder / "drawn", name))
        for name in PRODUCTS
    ]


def _background(folder: Path, product: str) -> Path | None:
    mask = background(product)
    if mask is None:
        return None
    path = folder / f"{product}-background.png"
    Image.fromarray(mask).save(path)
    return path


def given_products(data: Path, folder: Path) -> list[DemoProduct]:
    """One category folder, or a folder of them.

    Raises:
        DatasetError: neither.
    """
    if not data.is_dir():
        raise DatasetError(f"{data} is not a folder that can be read")
    categories = [data] if (data / "train" / GOOD).is_dir() else sorted(p.parents[1] for p in data.glob("*/train/good"))
    if not categories:
        raise DatasetError(f"{data} is not in MVTec layout: expected train/good, test/good and test/<defect> in it")
    return [_stage(category.resolve(), folder / "staged") for category in categories]


def _stage(category: Path, folder: Path) -> DemoProduct:
    """Links to a category's images: most of the good ones known from the start, the last ones coming later."""
    name = product_name(category.name)
    files = discover(category)
    good = [file.path for file in files if not file.labelled]
    shots = tuple(file for file in files if file.labelled)
    if not shots:
        raise DatasetError(f"{category} has no test images: expected test/good and test/<defect> in it")
    count = max(1, round(len(good) * LATER_SHARE))
    root = folder / name
    shutil.rmtree(root, ignore_errors=True)
    _link(good[:-count], root / "known" / "train" / GOOD)
    _link(good[-count:], root / "later")
    for sub in ("test", "ground_truth"):
        if (category / sub).is_dir():
            (root / "known" / sub).symlink_to(category / sub)
    return DemoProduct(name, root / "known", root / "later", _mixed(shots))


def _mixed(shots: Sequence[LocalImage]) -> tuple[LocalImage, ...]:
    """Good and defective images in an order that a line could show, the same each time."""
    import random

    order = list(shots)
    random.Random(0).shuffle(order)
    return tuple(order)


def _link(paths: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        (folder / path.name).symlink_to(path)
