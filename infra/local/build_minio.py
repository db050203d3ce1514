"""Builds the MinIO server with Go into the cache: its project publishes neither a wheel nor a binary any more."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infra.local.cache import filling
from infra.local.errors import CannotRun, FetchFailed
from infra.local.minio_server import GO_PACKAGE, GO_VERSION, cached_minio, server_version

# From here on `go` fetches the newer toolchain that the sources ask for by itself.
OLDEST_GO = (1, 21)
USUAL_S = 340
HOW_TO_GET_GO = "Install Go 1.26 (go.dev/dl), or put a `minio` server binary on PATH."


def find_go() -> tuple[str | None, str]:
    """The path of `go` and its version such as "1.26.8"; (None, why) where it cannot build MinIO."""
    go = shutil.which("go")
    if go is None:
        return None, "no go on PATH"
    told = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False).stdout
    match = re.search(r"go(\d+)\.(\d+)(\S*)", told)
    if not match or (int(match[1]), int(match[2])) < OLDEST_GO:
        return None, f"{told.strip() or go} is older than {'.'.join(map(str, OLDEST_GO))}"
    return go, f"{match[1]}.{match[2]}{match[3]}"


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
            built = _go_install(go, Path(scratch), progress)
            target.parent.mkdir(exist_ok=True)
            built.replace(target)
    return target


def _go_install(go: str, scratch: Path, progress: Callable[[float], None]) -> Path:
    environment = {**os.environ, "GOBIN": str(scratch), "CGO_ENABLED": "0"}
    command = [go, "install", "-ldflags=-s -w", f"{GO_PACKAGE}@{GO_VERSION}"]
    log = scratch / "go.log"
    with log.open("wb") as output:
        # In a session of its own: Go's compilers are its children, and are ended with it.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        started = time.monotonic()
        try:
            while process.poll() is None:
                progress(min(0.99, (time.monotonic() - started) / USUAL_S))
                time.sleep(0.5)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    built = scratch / "minio"
    if process.returncode != 0 or not server_version(str(built)):
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
        raise FetchFailed(f"Go could not build MinIO (`{' '.join(command)}`); it said last:\n{tail}\n{HOW_TO_GET_GO}")
    return built
