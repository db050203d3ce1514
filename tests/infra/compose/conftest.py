"""The engine and the images that the tests of Compose need; without them they say what is missing."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.compose.engine import Engine, engine, no_engine

IMAGES = ("LINEWATCH_IMAGE", "KAFKA_IMAGE", "S3_IMAGE")


@pytest.fixture(scope="session")
def docker() -> Iterator[Engine]:
    missing = [name for name in IMAGES if not os.environ.get(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not set: `make compose-test` names the images to try")
    if reason := no_engine():
        pytest.skip(reason)
    # Not pytest's folder, whose name is too long for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="lwd", ignore_cleanup_errors=True) as folder,
        engine(Path(folder) / "d") as own,
    ):
        for name in IMAGES:
            own.load(os.environ[name])
        yield own
