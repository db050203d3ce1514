"""Settings and servers for a job: the embedded servers of this folder where nothing else is configured."""

import os
from pathlib import Path

from infra.local import LocalServers
from pipeline.settings import S3, Kafka, Settings
from pipeline.storage.store import S3Store

LOCAL_DATA = Path(".linewatch")


def load_settings(config: Path | None = None) -> Settings:
    """Settings of the file and the environment; with embedded servers up in this folder, theirs fill the gaps.

    Raises:
        SettingsError: see :meth:`Settings.load`.
    """
    settings = Settings.load(config)
    untouched = settings.s3.endpoint == S3().endpoint and settings.kafka.bootstrap_servers == Kafka().bootstrap_servers
    if settings.s3.access_key is None and untouched:
        folder = Path(os.environ.get("LINEWATCH_LOCAL__DATA_DIR", LOCAL_DATA))
        servers = LocalServers.attach(folder) if folder.is_dir() else None
        if servers:
            for name, value in servers.environment().items():
                os.environ.setdefault(name, value)
            return Settings.load(config)
    return settings


def open_store(settings: Settings) -> S3Store:
    """The object store, with its bucket made where it is missing.

    Raises:
        SettingsError: no credentials.
        StoreUnavailable: no answer.
    """
    store = S3Store(settings.s3)
    store.ensure_bucket()
    return store
