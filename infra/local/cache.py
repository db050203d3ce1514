"""Where fetched and built programs live: one folder per user, shared by all data folders and checkouts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/linewatch`, or `~/.cache/linewatch`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say to ignore a relative path.
    base = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return base / "linewatch"


@contextmanager
def filling(name: str) -> Iterator[Path]:
    """Alone in filling one part of the cache: a second process waits here, and then finds it filled."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
