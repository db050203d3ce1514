"""Each test sees the defaults: no LINEWATCH_* of the machine, none of another test, no linewatch.yaml."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("LINEWATCH_")}
    for name in kept:
        del os.environ[name]
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in os.environ if name.startswith("LINEWATCH_")]:
        del os.environ[name]
    os.environ.update(kept)
