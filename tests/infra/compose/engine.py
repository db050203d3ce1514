"""A real Docker engine for a test: this machine's, or one of the test's own in a network namespace of its own."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_WITHIN_S = 180
STOP_WITHIN_S = 120
LOAD_WITHIN_S = 1500
SLOW_S = 580


@dataclass
class Engine:
    """Commands of docker, of Compose, and of the host whose loopback the containers' ports are on."""

    docker_words: list[str]
    compose_words: list[str]
    inside: list[str] = field(default_factory=list)

    def docker(self, *words: str, timeout: float = SLOW_S, check: bool = True) -> str:
        return run([*self.docker_words, *words], timeout=timeout, check=check)

    def on_host(self, *words: str, check: bool = True) -> str:
        return run([*self.inside, *words], timeout=60, check=check)

    def load(self, image: str) -> None:
        """From podman's store, where docker has not got it."""
        if self.docker("images", "--quiet", image):
            return
        assert shutil.which("podman"), f"no image {image}: docker has none, and there is no podman to have it from"
        with subprocess.Popen(["podman", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                [*self.docker_words, "load", "--quiet"], stdin=saved.stdout, check=True, timeout=LOAD_WITHIN_S
            )
        assert saved.returncode == 0
        # Podman calls its own `localhost/...`.
        if not self.docker("images", "--quiet", image):
            self.docker("tag", f"localhost/{image}", image)


def run(words: list[str], *, timeout: float, check: bool = True, env: dict[str, str] | None = None) -> str:
    """What it wrote; where it fails, an error with all of that."""
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        env=os.environ | (env or {}),
    )  # fmt: skip
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"[-6000:])
    return done.stdout + ("" if check else done.stderr)


def compose_program() -> list[str] | None:
    """Compose v2 or newer, as docker's plugin or alone."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]):
            told = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False)
            if told.returncode == 0 and not told.stdout.strip().lstrip("v").startswith("1."):
                return words
    return None


def no_engine() -> str | None:
    """Why there is none, or None."""
    if compose_program() is None:
        return "no Docker Compose v2 (docker compose, docker-compose)"
    if _answers([]):
        return None
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        return "no Docker engine answers, and one of the test's own takes root and dockerd"
    return None


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """This machine's engine where one answers. folder: for one of the test's own, which is gone afterwards."""
    compose = compose_program()
    assert compose
    if _answers([]):
        yield Engine(["docker"], compose)
        return
    socket = folder / "docker.sock"
    settings = {
        "data-root": str(folder / "data"), "exec-root": str(folder / "run"), "pidfile": str(folder / "pid"),
        "hosts": [f"unix://{socket}"], "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": "/linewatch-compose", "storage-driver": "overlay2", "ip6tables": False,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "daemon.json").write_text(json.dumps(settings))
    with (folder / "dockerd.log").open("wb") as log:
        # A process that is killed ends what it started, so that nothing outlives a test that is cut off.
        daemon = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up; exec dockerd --config-file "$0"',
             str(folder / "daemon.json")], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            host = f"unix://{socket}"
            deadline = time.monotonic() + START_WITHIN_S
            while not _answers(["--host", host]):
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((folder / "dockerd.log").read_text()[-3000:])
                time.sleep(0.5)
            alone = compose if compose[0] == "docker-compose" else None
            words = ["docker-compose", "--host", host] if alone else ["docker", "--host", host, "compose"]
            yield Engine(["docker", "--host", host], words, ["nsenter", f"--net=/proc/{daemon.pid}/ns/net"])
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _answers(words: list[str]) -> bool:
    if not shutil.which("docker"):
        return False
    told = subprocess.run(["docker", *words, "version"], capture_output=True, check=False, timeout=30)
    return told.returncode == 0
