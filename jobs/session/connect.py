"""Settings and servers for a job: the embedded servers of this folder where nothing else is configured."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from infra.local import LocalServers
from pipeline.settings import S3, Kafka, Settings
from pipeline.storage.store import S3Store

LOCAL_DATA = Path(".linewatch")
LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.2", "::1")


def load_settings(config: Path | None = None) -> Settings:
    """Settings of the file and the environment; with embedded servers up in this folder, theirs fill the gaps.

    Raises:
        SettingsError: see :meth:`Settings.load`.
    """
    settings = Settings.load(config)
    go_directly(LOOPBACK)
    untouched = settings.s3.endpoint == S3().endpoint and settings.kafka.bootstrap_servers == Kafka().bootstrap_servers
    if settings.s3.access_key is None and settings.s3.credentials == "settings" and untouched:
        folder = Path(os.environ.get("LINEWATCH_LOCAL__DATA_DIR", LOCAL_DATA))
        servers = LocalServers.attach(folder) if folder.is_dir() else None
        if servers:
            for name, value in servers.environment().items():
                os.environ.setdefault(name, value)
            return Settings.load(config)
    return settings


def open_store(settings: Settings) -> S3Store:
    """The object store, whose bucket must be there: one that is mistyped would be an empty one for ever.

    Raises:
        SettingsError: no credentials.
        StoreUnavailable: no answer, or no such bucket.
    """
    store = S3Store(settings.s3)
    store.require_bucket()
    return store


def make_store(settings: Settings, say: Callable[[str], None] = lambda _: None) -> S3Store:
    """The object store, with its bucket made where it is missing: for what comes first, and says so.

    Raises:
        SettingsError: no credentials.
        StoreUnavailable: no answer.
    """
    store = S3Store(settings.s3)
    if store.ensure_bucket():
        say(f"made the bucket {settings.s3.bucket!r}, which was not there")
    return store


def go_directly(hosts: Iterable[str]) -> None:
    """To these no proxy of the environment leads: Ray's clients would ask it for this very machine."""
    for name in ("no_proxy", "NO_PROXY"):
        there = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*there, *hosts]))
