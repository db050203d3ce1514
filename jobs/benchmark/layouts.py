"""Benchmark folders as their authors publish them: MVTec AD, MVTec AD 2 and VisA."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.fitting.datasets import GOOD, DatasetError
from jobs.fitting.datasets.layout import survey


@dataclass(frozen=True)
class TestImage:
    """kind: "good", or the kind of its defect. masks: none of good images and where nobody drew one."""

    path: Path
    kind: str
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Category:
    name: str
    train: tuple[Path, ...]
    test: tuple[TestImage, ...]


def categories(folder: Path) -> list[Category]:
    """The categories of a folder, or the one that the folder is itself, sorted by name.

    Layouts: MVTec AD (``<category>/train/good``, ``test/<kind>``, ``ground_truth/<kind>``), MVTec AD 2 (``test_public``
    with ``ground_truth`` inside), VisA (``split_csv/1cls.csv``). Masks are named as ingest takes them
    (jobs/fitting/datasets/truth.py).

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
    found = survey(folder).images
    train = tuple(image.path for image in found if not image.labelled)
    test = tuple(
        TestImage(image.path, image.kind, image.masks if image.kind != GOOD else ())
        for image in found
        if image.labelled
    )
    return Category(folder.resolve().name, train, test)


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
                    test[name].append(TestImage(path, kind, (folder / row["mask"],) if row["mask"] else ()))
    except (KeyError, OSError, csv.Error) as error:
        raise DatasetError(f"{table} is not VisA's table of splits: {error!r}") from None
    for name in sorted(train):
        yield Category(name, tuple(train[name]), tuple(test[name]))
