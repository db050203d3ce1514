"""Each test sees the defaults: no LINEWATCH_* of the machine, none of another test, no linewatch.yaml."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def no_settings_in_the_environment() -> Iterator[None]:
    """For fixtures that last longer than a test: a plant that still stands may have left its own there."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("LINEWATCH_")}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("LINEWATCH_")]:
            del os.environ[name]
        os.environ.update(kept)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with no_settings_in_the_environment():
        monkeypatch.chdir(tmp_path)
        yield
