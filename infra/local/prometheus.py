"""Prometheus and promtool, built from their published sources by Go into the cache, or found on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from infra.local.cache import cache_dir, filling
from infra.local.errors import CannotRun
from infra.local.go_build import find_go, go_install
from infra.local.program import Found, Missing

GO_MODULE = "github.com/prometheus/prometheus"
GO_VERSION = "v0.316.0"
BUILT_VERSION = "3.16.0"
PROGRAMS = ("prometheus", "promtool")
# Of what discovers targets only files, HTTP and Kubernetes: the clouds' own are most of what would be compiled.
TAGS = "remove_all_sd,enable_kubernetes_sd"
USUAL_S = 300
HOW_TO_GET = "Build it with `linewatch local build-prometheus` (needs Go), or put `prometheus` and `promtool` on PATH."


def cached_prometheus() -> Path:
    """The folder into which `linewatch local build-prometheus` puts both programs."""
    return cache_dir() / f"prometheus-{BUILT_VERSION}"


def find_prometheus(program: str = "prometheus") -> Found | Missing:
    """One of `PROGRAMS`."""
    cached = cached_prometheus() / program
    if os.access(cached, os.X_OK):
        return Found(str(cached), BUILT_VERSION, "binary in cache")
    if (on_path := shutil.which(program)) and (version := told_version(on_path)):
        return Found(os.path.abspath(on_path), version, "binary on PATH")
    return Missing(f"no {program} on PATH or in the cache", HOW_TO_GET)


def told_version(program: str) -> str:
    """The version that the program tells; "" for another of that name."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    match = re.match(r"(?:prometheus|promtool), version (\S+)", done.stdout + done.stderr)
    return match[1] if match else ""


def build_prometheus(progress: Callable[[float], None]) -> Path:
    """Build both and return their folder; at once where they are built already.

    `progress` is called about once a second with the share of the usual time that has passed, below 1.

    Raises:
        CannotRun: there is no Go.
        FetchFailed: Go could not build them.
    """
    target = cached_prometheus()
    go, version = find_go()
    with filling(target.name) as cache:
        if all((target / name).exists() for name in PROGRAMS):
            return target
        if go is None:
            raise CannotRun(f"Prometheus cannot be built here: {version}. {HOW_TO_GET}")
        with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as scratch:
            flags = f"-s -w -X github.com/prometheus/common/version.Version={BUILT_VERSION}"
            sources = [f"{GO_MODULE}/cmd/{name}@{GO_VERSION}" for name in PROGRAMS]
            go_install([go, "-tags", TAGS, f"-ldflags={flags}", *sources], Path(scratch), USUAL_S, progress)
            target.mkdir(exist_ok=True)
            for name in PROGRAMS:
                (Path(scratch) / name).replace(target / name)
    return target
