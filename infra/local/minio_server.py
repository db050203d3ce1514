"""MinIO, the S3 store that the product is meant for. Its project ships no wheel: built once with Go, or on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from infra.local.cache import cache_dir
from infra.local.program import Found, Missing, Program, Role
from infra.local.readiness import probe_s3

GO_PACKAGE = "github.com/minio/minio"
GO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
BUILT_VERSION = "2026-02-12"
HOW_TO_GET = "Build it with `linewatch local build-minio` (about 6 minutes, needs Go), or put `minio` on PATH."


def cached_minio() -> Path:
    """Where `linewatch local build-minio` puts the program."""
    return cache_dir() / f"minio-{BUILT_VERSION.replace('-', '')}" / "minio"


def find_minio() -> Found | Missing:
    if (on_path := shutil.which("minio")) and (version := server_version(on_path)):
        return Found(os.path.abspath(on_path), version, "binary on PATH")
    cached = cached_minio()
    if os.access(cached, os.X_OK):
        return Found(str(cached), BUILT_VERSION, "binary in cache")
    if on_path:
        # Most likely a client, or another tool of that name.
        return Missing(f"{on_path} is not the MinIO server", HOW_TO_GET)
    return Missing("no minio server program on PATH or in the cache", HOW_TO_GET)


def server_version(program: str) -> str:
    """The version that a MinIO *server* tells; "" for anything else that goes by its name, such as the client."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
        described = subprocess.run(
            [program, "server", "--help"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    match = re.match(r"minio version (\S+)", told)
    if not match or "--console-address" not in described.stdout + described.stderr:
        return ""
    release = re.match(r"RELEASE\.(\d{4}-\d{2}-\d{2})", match[1])
    return release[1] if release else match[1]


class MinioServer(Program):
    kind: ClassVar[str] = "minio"
    role: ClassVar[Role] = "s3"
    title: ClassVar[str] = "MinIO"
    package: ClassVar[str] = "minio"
    port_names: ClassVar[tuple[str, ...]] = ("main", "console")

    def command(self) -> list[str]:
        return [
            self.binary,
            "server",
            "--address",
            self.endpoint,
            # Left out, the console listens on every interface.
            "--console-address",
            f"{self.host}:{self.ports['console']}",
            # Left out, certificates of the user's own MinIO would turn this one to TLS.
            "--certs-dir",
            "certs",
            "--anonymous",
            "data",
        ]

    def environment(self) -> dict[str, str]:
        return {
            "MINIO_ROOT_USER": self.credentials.access_key,
            "MINIO_ROOT_PASSWORD": self.credentials.secret_key,
            "MINIO_UPDATE": "off",
            "GOMEMLIMIT": "400MiB",
        }

    def probe(self) -> None:
        probe_s3(self.endpoint, self.credentials)
