"""What is installed, which servers can run here, what is missing and how to get it."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infra.local.doctor import server_report
from model import WeightsError
from pipeline.errors import LinewatchError

PACKAGES = ("torch", "ray", "kafka-python", "minio", "pydantic", "pillow")


@dataclass(frozen=True)
class Finding:
    """One line. ``needed``: linewatch can't work without it."""

    what: str
    found: bool
    detail: str
    how_to_get: str = ""
    needed: bool = False


def report(config: Path | None) -> list[Finding]:
    """Everything worth knowing about this machine, most important first."""
    return [
        _python(),
        *(_package(name) for name in PACKAGES),
        _crc32c(),
        _device(),
        _weights(),
        *(Finding(f.what, f.found, f.detail, f.how_to_get) for f in server_report()),
        _settings(config),
    ]


def _python() -> Finding:
    fits = sys.version_info >= (3, 11)
    return Finding(
        "Python", fits, f"{platform.python_version()} at {sys.executable}", "install Python 3.11+", needed=True
    )


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name), needed=True)
    except PackageNotFoundError:
        return Finding(name, False, "not installed", "make install", needed=True)


def _crc32c() -> Finding:
    try:
        return Finding("crc32c", True, f"{version('crc32c')} (Kafka checksums in C)")
    except PackageNotFoundError:
        return Finding("crc32c", False, "not installed: Kafka is 20 times slower", "pip install 'kafka-python[crc32c]'")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, torch.cuda.get_device_name(0))
    return Finding("GPU", False, f"none: scoring and fitting use {os.cpu_count()} CPU cores")


def _weights() -> Finding:
    from model.teachers import load_teacher

    try:
        teacher = load_teacher("efficientnet_lite0")
    except WeightsError as error:
        return Finding("EfficientNet-Lite0", False, str(error), "make install", needed=True)
    return Finding("EfficientNet-Lite0", True, f"ImageNet weights {teacher.weights_sha256[:12]}", needed=True)


def _settings(config: Path | None) -> Finding:
    from jobs.session.connect import load_settings

    try:
        settings = load_settings(config)
    except LinewatchError as error:
        return Finding("settings", False, str(error), "see docs/configuration.md", needed=True)
    return Finding("settings", True, f"Kafka {settings.kafka.bootstrap_servers}, S3 {settings.s3.endpoint}")
