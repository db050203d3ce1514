"""The record in a data folder: which servers run, as which processes, on which ports; and the lock around changes."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.local.credentials import FILE_NAME as CREDENTIALS
from infra.local.errors import Busy, FolderUnusable
from infra.local.private import make_private_folder, write_private
from infra.local.process import Identity

RECORD = "servers.json"
LOCK = "lock"
# Everything that these servers ever put into a data folder: what `reset` deletes, and nothing else.
OURS = (RECORD, CREDENTIALS, LOCK, ".gitignore", "logs", "kafka", "s3")


@dataclass
class Record:
    """One server: enough to reach, end and restart it from another process. `process` is None while it is stopped."""

    kind: str
    binary: str
    version: str
    why: str
    ports: dict[str, int]
    process: Identity | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive


@dataclass
class State:
    """`kafka` has each broker; `owner` is the Python process that the servers end with, None for detached ones."""

    kafka: list[Record]
    s3: Record
    owner: Identity | None = None

    @property
    def servers(self) -> list[Record]:
        return [*self.kafka, self.s3]


def prepare_data_dir(data_dir: Path) -> None:
    """Make the folder, or see that an existing one is ours: its mode changes here, and `reset` deletes in it."""
    if data_dir.is_dir():
        entries = {entry.name for entry in data_dir.iterdir()}
        foreign = sorted(entries - set(OURS))
        if foreign and RECORD not in entries:
            raise FolderUnusable(
                f"{data_dir} holds other things ({', '.join(foreign[:3])}): give an empty or a new folder for the data."
            )
    elif data_dir.exists():
        raise FolderUnusable(f"{data_dir} is a file: give an empty or a new folder for the data.")
    try:
        make_private_folder(data_dir)
    except OSError as error:
        raise FolderUnusable(
            f"The data folder {data_dir} can't be made ({error.strerror}): give another by --data-dir."
        ) from None
    for name in ("logs", "kafka", "s3"):
        make_private_folder(data_dir / name)
    # The folder lies in a checkout by default, and holds credentials.
    (data_dir / ".gitignore").write_text("*\n", encoding="ascii")


@contextmanager
def locked(data_dir: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Alone in changing what runs in this folder. The lock goes with its process: no stale lock can be left."""
    descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, data_dir, wait_s)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, data_dir: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(
                    f"Another process is starting or stopping the servers in {data_dir} right now: "
                    "wait for it, then look with `linewatch local status`."
                ) from None
        time.sleep(0.05)


def write_state(data_dir: Path, state: State) -> None:
    write_private(data_dir / RECORD, json.dumps(asdict(state), indent=2) + "\n")


def read_state(data_dir: Path) -> State | None:
    path = data_dir / RECORD
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        # Written before there could be several brokers, it holds the one, and no list.
        brokers = [told["kafka"]] if isinstance(told["kafka"], dict) else told["kafka"]
        if not brokers:
            raise ValueError("it names no broker")
        return State([_record(one) for one in brokers], _record(told["s3"]), _identity(told["owner"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FolderUnusable(
            f"The record {path} cannot be read ({type(error).__name__}: {error}). "
            "End its servers by hand if any run, then `linewatch local reset` (this deletes the folder's data)."
        ) from error


def _record(told: dict[str, Any]) -> Record:
    return Record(**{**told, "process": _identity(told["process"])})


def _identity(told: dict[str, Any] | None) -> Identity | None:
    return None if told is None else Identity(pid=int(told["pid"]), started=str(told["started"]))
