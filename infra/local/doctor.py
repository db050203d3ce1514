"""What this machine has of what the embedded servers need, for `linewatch doctor`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from infra.local.apache_kafka import HOW_TO_GET, OLDEST_JAVA, find_apache
from infra.local.build_minio import HOW_TO_GET_GO
from infra.local.go_build import find_go
from infra.local.kafka_jars import find_java
from infra.local.minio_server import find_minio
from infra.local.program import Found, Missing
from infra.local.seaweedfs import find_seaweedfs
from infra.local.tansu import find_tansu


@dataclass(frozen=True)
class Finding:
    """One thing looked for; `how_to_get` is empty where it was found."""

    what: str
    found: bool
    detail: str
    how_to_get: str = ""


def server_report() -> list[Finding]:
    """The servers first, the better one of each kind before its stand-in; then the tools that they need."""
    java, java_version = find_java()
    maven = shutil.which("mvn")
    go, go_detail = find_go()
    java_fits = java is not None and java_version >= OLDEST_JAVA
    return [
        _server("Apache Kafka", find_apache()),
        _server("Tansu (stands in for Kafka)", find_tansu()),
        _server("MinIO", find_minio()),
        _server("SeaweedFS (stands in for MinIO)", find_seaweedfs()),
        _tool("java", java_fits, f"{java_version} at {java}" if java else "not found", HOW_TO_GET),
        _tool("mvn", maven is not None, maven or "not on PATH", HOW_TO_GET),
        _tool("go (to build MinIO)", go is not None, f"{go_detail} at {go}" if go else go_detail, HOW_TO_GET_GO),
    ]


def _server(what: str, result: Found | Missing) -> Finding:
    if isinstance(result, Found):
        return Finding(what, True, f"{result.version} ({result.why})")
    return Finding(what, False, result.why, result.how_to_get)


def _tool(what: str, found: bool, detail: str, how_to_get: str) -> Finding:
    return Finding(what, found, detail, "" if found else how_to_get)
