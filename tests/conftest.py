"""What several rooms' tests share: a real model, small enough to be fitted in seconds, and real servers.

Imports of linewatch wait until they are needed: the tests of model/ run on machines that have nothing else.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.threads import all_live, watched

if TYPE_CHECKING:
    from infra.local import LocalServers
    from model import ModelBundle
    from pipeline.settings import Settings
    from pipeline.storage.store import S3Store

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    # Ray reads once in a process how to authenticate, as late as when it is imported: here, whoever imports it first.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_urlsafe(16))
    # kafka-python 3.0.12 reads its schemas by functions that Python 3.11 calls deprecated; nothing of ours.
    for name in ("read_text", "open_text"):
        config.addinivalue_line("filterwarnings", f"ignore:{name} is deprecated:DeprecationWarning")
    # An example that takes long on a busy machine is no failure.
    with suppress(ImportError):
        from hypothesis import settings

        settings.register_profile("patient", deadline=None)
        settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)  # tests of model/ run where there is no xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file goes to one worker, and all that start Ray to the same one: two Rays that start at once are slow to.

    But for chaos, whose Ray is a process of its own and takes a third of that worker's time.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            starts_ray = "pytest.mark.ray" in _text(config.rootpath / file)
            return "ray" if starts_ray and not file.endswith("test_chaos.py") else file

    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the files: the dear ones first, so that none begins a long one when the others are done."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(_text(item.path)))


def _place(text: str) -> int:
    """All that start Ray are one process's work, the longest; what starts servers follows; quick ones fill the end."""
    marks = ("pytest.mark.ray", "pytest.mark.servers")
    return next((place for place, mark in enumerate(marks) if mark in text), len(marks))


@cache
def _text(file: Path) -> str:
    return file.read_text()


@pytest.fixture(scope="session")
def tiny_bundle() -> ModelBundle:
    from tests.pipeline.tiny import fitted

    return fitted()


@dataclass(frozen=True)
class Plant:
    """A broker and a store that run."""

    kind: str
    servers: LocalServers

    def settings(self, **sections: dict[str, Any]) -> Settings:
        """Settings with topics, a group and a bucket of their own at each call."""
        from pipeline.settings import Settings

        name = f"t{next(_numbers)}"
        ours: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": self.servers.bootstrap_servers, "group": name},
            "topics": {"prefix": name, "partitions": 2},
            "s3": {
                "endpoint": f"http://{self.servers.s3_endpoint}",
                "bucket": f"bucket-{name}",
                "access_key": self.servers.access_key,
                "secret_key": self.servers.secret_key,
            },
        }
        from tests.pipeline.environment import no_settings_in_the_environment

        with no_settings_in_the_environment():
            return Settings(**{key: {**ours.get(key, {}), **sections.get(key, {})} for key in {**ours, **sections}})

    def store(self, settings: Settings) -> S3Store:
        from pipeline.storage.store import S3Store

        store = S3Store(settings.s3)
        store.ensure_bucket()
        return store


def plant(folder: Path, kafka: Literal["apache", "tansu"], s3: Literal["minio", "seaweedfs"]) -> Iterator[Plant]:
    from infra.local import LocalServers
    from infra.local.apache_kafka import find_apache
    from infra.local.minio_server import find_minio
    from infra.local.program import Missing

    for found in (find_apache() if kafka == "apache" else None, find_minio() if s3 == "minio" else None):
        if isinstance(found, Missing):
            pytest.skip(f"{found.why}. {found.how_to_get}")
    with LocalServers.start(folder, kafka=kafka, s3=s3) as servers:
        yield Plant(f"{kafka}+{s3}", servers)


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Apache Kafka, with SeaweedFS."""
    yield from plant(tmp_path_factory.mktemp("apache") / "data", "apache", "seaweedfs")


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Tansu, with MinIO where its program is here, else with SeaweedFS."""
    from infra.local.minio_server import find_minio
    from infra.local.program import Missing

    s3: Literal["minio", "seaweedfs"] = "seaweedfs" if isinstance(find_minio(), Missing) else "minio"
    yield from plant(tmp_path_factory.mktemp("tansu") / "data", "tansu", s3)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with watched():
        yield
    # It writes on a board that the whole process shares: over the next test's, if it lived on.
    assert not [thread for thread in threading.enumerate() if thread.name == "stall-watch"], "a worker was not stopped"


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until something holds; says what did not, and does not wait for a thread that has died."""

    def wait(holds: Callable[[], object], *, within_s: float = 60.0, what: str = "") -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            all_live()
            assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what or holds}"
            time.sleep(0.02)

    return wait
