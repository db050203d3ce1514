"""Photographs of the user's to measure on, instead of drawn ones."""

from __future__ import annotations

from pathlib import Path

from jobs.fitting.datasets import SUFFIXES
from pipeline.errors import LinewatchError


class NoPhotographs(LinewatchError):
    """A folder holds no image."""


def read_photographs(folder: Path, most: int) -> list[bytes]:
    """The first `most` images below a folder by their names, as they are on disk; masks of a data set are left out.

    Raises NoPhotographs.
    """
    found = sorted(folder.rglob("*")) if folder.is_dir() else []
    paths = [path for path in found if path.suffix.lower() in SUFFIXES and "ground_truth" not in path.parts]
    if not paths:
        raise NoPhotographs(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}); leave --photos out to draw some")
    return [path.read_bytes() for path in paths[:most]]
