"""Where fetched and built programs live: one folder per user, shared by all data folders and checkouts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.errors import FolderUnusable


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/linewatch`, or `~/.cache/linewatch`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say to ignore a relative path.
    if Path(configured).is_absolute():
        return Path(configured) / "linewatch"
    try:
        return Path.home() / ".cache" / "linewatch"
    except RuntimeError:
        raise FolderUnusable(
            "There is no home folder to keep fetched programs in: set HOME or XDG_CACHE_HOME."
        ) from None


@contextmanager
def filling(name: str) -> Iterator[Path]:
    """Alone in filling one part of the cache: a second process waits here, and then finds it filled."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{name}.lock").open("w")
    except OSError as error:
        raise FolderUnusable(
            f"Fetched programs can't be kept in {folder} ({error.strerror}): set XDG_CACHE_HOME to a folder that "
            "can be written to."
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
