"""Filling the cache: two at once, and what is left when it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from infra.local.build_minio import build_minio
from infra.local.cache import cache_dir, filling
from infra.local.errors import CannotRun, FetchFailed, FolderUnusable
from infra.local.kafka_jars import ensure_jars, jars_dir
from infra.local.minio_server import cached_minio
from tests.threads import together

Put = Callable[[str, str], Path]


def test_a_cache_that_cannot_be_written_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    with pytest.raises(FolderUnusable, match=r"can't be kept in /proc/none/linewatch .*: set XDG_CACHE_HOME"):
        filling("kafka").__enter__()


def test_without_a_home_the_cache_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(FolderUnusable, match="set HOME or XDG_CACHE_HOME"):
        cache_dir()


MAVEN = """
for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done
mkdir "$out" && sleep 0.3 && touch "$out/kafka_2.13-4.3.1.jar" && echo x >> "$(dirname "$0")/fetches"
"""
GO = """
case "$1" in
  version) echo "go version go1.26.8 linux/amd64";;
  install) printf '#!/bin/sh\\necho "minio version X --console-address"\\n' > "$GOBIN/minio"; chmod +x "$GOBIN/minio";;
esac
"""


def quietly(_: str) -> None: ...


def no_progress(_: float) -> None: ...


def test_two_at_once_fetch_the_jars_once(fake_program: Put) -> None:
    maven = fake_program("mvn", MAVEN)
    folders: list[Path] = []
    together(*[lambda: folders.append(ensure_jars(quietly))] * 2)
    assert folders == [jars_dir(), jars_dir()]
    assert (maven.parent / "fetches").read_text() == "x\n"


def test_a_failed_fetch_leaves_nothing_that_looks_like_jars(fake_program: Put) -> None:
    fake_program("mvn", "mkdir jars; touch jars/half.jar; echo '[ERROR] offline'; exit 1")
    with pytest.raises(FetchFailed, match=r"offline[\s\S]*--kafka tansu"):
        ensure_jars(quietly)
    assert not jars_dir().exists()
    assert [path for path in cache_dir().iterdir() if path.is_dir()] == []


def test_minio_is_built_into_the_cache_once(fake_program: Put) -> None:
    go = fake_program("go", GO)
    assert build_minio(no_progress) == cached_minio()
    go.unlink()
    assert build_minio(no_progress) == cached_minio(), "needs no Go when it is built already"


def test_a_failed_build_says_what_go_said(fake_program: Put) -> None:
    fake_program("go", 'case "$1" in version) echo go version go1.26.8;; *) echo "dial tcp: no route"; exit 1;; esac')
    with pytest.raises(FetchFailed, match="no route"):
        build_minio(no_progress)
    assert not cached_minio().exists()


@pytest.mark.parametrize("script", [None, "echo go version go1.19.8 linux/amd64"])
def test_without_a_go_that_can_build_it_the_error_says_how_to_get_one(fake_program: Put, script: str | None) -> None:
    if script:
        fake_program("go", script)
    with pytest.raises(CannotRun, match=r"go.*Install Go 1\.26"):
        build_minio(no_progress)
