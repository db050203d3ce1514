"""A line that runs from code in a folder, which is another release's after an upgrade: Ray, cameras and events."""

import io
import os
import secrets
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from infra.local import LocalServers
from jobs.line.follow import Follower, event_of
from pipeline.contracts.events import InspectionEvent
from pipeline.kafka.clients import make_producer
from pipeline.settings import Settings
from tests.pipeline.environment import no_settings_in_the_environment
from tests.pipeline.tiny import message, texture
from tests.ray_head import HEAD, head_ports

ROOT = Path(__file__).parents[2]
REPLICA = "ray::ServeReplica"
CAMERAS, PER_S = 4, 5.0
LINEWATCH = [sys.executable, "-c", "from jobs.cli import main; main()"]


def unpack(commit: str, folder: Path) -> Path:
    """The code of a commit, as it was."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def has(commit: str) -> bool:
    """Whether this checkout's history reaches back to it."""
    try:
        asked = subprocess.run(
            ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return asked.returncode == 0


class Line:
    """What its people hold in their hands: one settings file, one environment, and the code that is installed."""

    def __init__(self, servers: LocalServers, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.ports = folder, head_ports()
        self._code = folder / "installed"
        self.file = folder / "linewatch.yaml"
        self.file.write_text(yaml.safe_dump(settings))
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **servers.environment(),
            "PYTHONPATH": str(self._code),
            "OMP_NUM_THREADS": "1",
            "LINEWATCH_CONFIG": str(self.file),
            "LINEWATCH_SERVING__RAY_ADDRESS": f"{HEAD}:{self.ports['gcs']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_urlsafe(16),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            # Fits of the release before need them, as its operations.md says.
            "AWS_ACCESS_KEY_ID": servers.access_key,
            "AWS_SECRET_ACCESS_KEY": servers.secret_key,
            "AWS_ENDPOINT_URL": f"http://{servers.s3_endpoint}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with no_settings_in_the_environment():
            os.environ.update(servers.environment())
            self.settings = Settings.from_values(settings)

    def install(self, code: Path) -> float:
        """Every node of this line has it from now on; returns when that was, in seconds since the epoch."""
        coming = self._code.with_suffix(".new")
        coming.symlink_to(code)
        coming.replace(self._code)
        return time.time()

    def asked(self, *words: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*LINEWATCH, *words], cwd=self.folder, env=self.environment | changes, capture_output=True, text=True,
            timeout=900, check=False,
        )  # fmt: skip

    def linewatch(self, *words: str) -> str:
        """Returns what it said on stdout. It must end well."""
        done = self.asked(*words)
        assert done.returncode == 0, f"linewatch {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


def replicas_since(head: "subprocess.Popen[bytes]", moment: float) -> tuple[int, int]:
    """How many replicas run on that Ray, and how many of them began after that moment."""
    found = []
    for process in psutil.Process(head.pid).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(REPLICA):
                found.append(process.create_time())
        except psutil.NoSuchProcess:
            continue
    return len(found), sum(begun > moment for begun in found)


@dataclass
class Stream:
    """Cameras that never stop, and the events that come of their images."""

    settings: Settings
    product: str
    sent: int = 0
    events: list[InspectionEvent] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Stream"]:
        followed = threading.Event()
        cameras = threading.Thread(target=self._send, name="cameras")
        events = threading.Thread(target=self._follow, args=(followed,), name="events")
        for thread in (cameras, events):
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            cameras.join()
            followed.set()
            events.join()

    def end(self) -> int:
        """No more images; returns how many there were, all acknowledged."""
        self._over.set()
        while any(thread.name == "cameras" for thread in threading.enumerate()):
            time.sleep(0.05)
        return self.sent

    def by(self, version: str, since: datetime) -> int:
        """Events of images captured since then that this version scored."""
        return sum(one.model_version == version and one.times.captured > since for one in list(self.events))

    def _send(self) -> None:
        images = [texture(5000 + number, spot=number % 5 == 0) for number in range(20)]
        producer = make_producer(self.settings)
        begun, failures = time.monotonic(), []
        try:
            while not self._over.wait(max(0.0, begun + self.sent / PER_S - time.monotonic())):
                camera = f"/plant/cam{self.sent % CAMERAS}"
                one = message(f"img-{self.sent:06d}", images[self.sent % len(images)], self.product, camera)
                producer.send(self.settings.topics.images, one.value, one.key, list(one.headers)).add_errback(
                    failures.append
                )
                self.sent += 1
            producer.flush(timeout=60)
        finally:
            producer.close(timeout=5)
        assert not failures, failures[0]

    def _follow(self, stop: threading.Event) -> None:
        with Follower(self.settings, self.settings.topics.events, from_beginning=True) as follower:
            for record in follower.follow(stop):
                self.events.append(event_of(record))
