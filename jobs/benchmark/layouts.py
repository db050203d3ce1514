"""Benchmark folders as their authors publish them: MVTec AD, MVTec AD 2 and VisA."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.fitting.datasets import GOOD, SUFFIXES, DatasetError


@dataclass(frozen=True)
class TestImage:
    """kind: "good", or the kind of its defect. mask: None for good images and where nobody drew one."""

    path: Path
    kind: str
    mask: Path | None = None


@dataclass(frozen=True)
class Category:
    name: str
    train: tuple[Path, ...]
    test: tuple[TestImage, ...]


def categories(folder: Path) -> list[Category]:
    """The categories of a folder, or the one that the folder is itself, sorted by name.

    Layouts: MVTec AD (``<category>/train/good``, ``test/<kind>``, ``ground_truth/<kind>/<stem>_mask.png``), MVTec AD 2
    (``test_public`` with ``ground_truth`` inside), VisA (``split_csv/1cls.csv``).

    Raises:
        DatasetError: no such folder, no category in it, or a category without good or without test images.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder that can be read")
    if (folder / "split_csv" / "1cls.csv").is_file():
        found = list(_visa(folder))
    else:
        folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
        found = [_mvtec(path) for path in folders if (path / "train" / GOOD).is_dir()]
    if not found:
        raise DatasetError(
            f"{folder} holds no category: expected <category>/train/{GOOD} (MVTec AD, MVTec AD 2) or "
            "split_csv/1cls.csv (VisA)"
        )
    for category in found:
        if not category.train or not category.test:
            raise DatasetError(
                f"{category.name} has {len(category.train)} good images to fit on and {len(category.test)} to test; "
                "both are needed"
            )
    return found


def _mvtec(folder: Path) -> Category:
    test = folder / "test_public" if (folder / "test_public").is_dir() else folder / "test"
    truth = test / "ground_truth" if (test / "ground_truth").is_dir() else folder / "ground_truth"
    images = []
    for kind in sorted(path for path in test.glob("*") if path.is_dir() and path.name != "ground_truth"):
        for path in _images(kind):
            mask = truth / kind.name / f"{path.stem}_mask.png"
            images.append(TestImage(path, kind.name, mask if kind.name != GOOD and mask.is_file() else None))
    return Category(folder.resolve().name, tuple(_images(folder / "train" / GOOD)), tuple(images))


def _visa(folder: Path) -> Iterator[Category]:
    """Columns object, split, label, image, mask; paths are relative to the folder."""
    table = folder / "split_csv" / "1cls.csv"
    train: dict[str, list[Path]] = {}
    test: dict[str, list[TestImage]] = {}
    try:
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                name, path = row["object"], folder / row["image"]
                train.setdefault(name, [])
                test.setdefault(name, [])
                if row["split"] == "train":
                    train[name].append(path)
                else:
                    kind = GOOD if row["label"] == "normal" else row["label"]
                    test[name].append(TestImage(path, kind, folder / row["mask"] if row["mask"] else None))
    except (KeyError, OSError, csv.Error) as error:
        raise DatasetError(f"{table} is not VisA's table of splits: {error!r}") from None
    for name in sorted(train):
        yield Category(name, tuple(train[name]), tuple(test[name]))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
