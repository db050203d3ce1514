"""Builds the MinIO server with Go into the cache: its project publishes neither a wheel nor a binary any more."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from infra.local.cache import filling
from infra.local.errors import CannotRun, FetchFailed
from infra.local.go_build import find_go, go_install
from infra.local.minio_server import GO_PACKAGE, GO_VERSION, cached_minio, server_version

USUAL_S = 340
HOW_TO_GET_GO = "Install Go 1.26 (go.dev/dl), or put a `minio` server binary on PATH."


def build_minio(progress: Callable[[float], None]) -> Path:
    """Build (about six minutes on two cores) and return the program; at once where it is built already.

    `progress` is called about once a second with the share of the usual time that has passed, below 1.
    """
    target = cached_minio()
    go, version = find_go()
    with filling(target.parent.name) as cache:
        if target.exists():
            return target
        if go is None:
            raise CannotRun(f"MinIO cannot be built here: {version}. {HOW_TO_GET_GO}")
        with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as scratch:
            built = _built(go, Path(scratch), progress)
            target.parent.mkdir(exist_ok=True)
            built.replace(target)
    return target


def _built(go: str, scratch: Path, progress: Callable[[float], None]) -> Path:
    try:
        go_install([go, "-ldflags=-s -w", f"{GO_PACKAGE}@{GO_VERSION}"], scratch, USUAL_S, progress)
    except FetchFailed as error:
        raise FetchFailed(f"MinIO: {error}\n{HOW_TO_GET_GO}") from None
    if not server_version(str(scratch / "minio")):
        raise FetchFailed(f"MinIO was built and does not say its version. {HOW_TO_GET_GO}")
    return scratch / "minio"
