"""Real servers for the tests of this folder, none of which may outlive its test."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def need() -> Callable[[str], None]:
    """`need("minio")` skips the test, and says why, where that server can't run on this machine."""
    from infra.local.apache_kafka import find_apache
    from infra.local.minio_server import find_minio
    from infra.local.program import Missing

    def skip_unless(kind: str) -> None:
        find = {"apache": find_apache, "minio": find_minio}.get(kind)
        found = find() if find else None
        if isinstance(found, Missing):
            pytest.skip(f"{kind}: {found.why}. {found.how_to_get}")

    return skip_unless


@pytest.fixture(scope="session")
def quick_s3() -> str:
    """For tests that are not about the store: MinIO where it is there (it stops at once), else SeaweedFS."""
    from infra.local.minio_server import find_minio
    from infra.local.program import Found

    return "minio" if isinstance(find_minio(), Found) else "seaweedfs"


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data folder; whatever still runs in it after the test is ended."""
    from infra.local.errors import FolderUnusable
    from infra.local.servers import stop_recorded

    folder = tmp_path / "data"
    yield folder
    try:
        stop_recorded(folder)
    except FolderUnusable:
        pass


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No java, mvn, go or minio: an empty PATH folder (returned, to put fakes in) and an empty cache."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return programs


@pytest.fixture
def fake_program(bare_machine: Path) -> Callable[[str, str], Path]:
    """Puts a shell script on the otherwise empty PATH."""

    def put(name: str, script: str) -> Path:
        path = bare_machine / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put
