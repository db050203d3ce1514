"""A line of infra/compose in a folder of its own: up, commands in it, down."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.drawing import draw
from tests.infra.compose.engine import SLOW_S, Engine, run

INFRA = Path(__file__).parents[3] / "infra"
PROJECT = "linewatch-test"
UP_WITHIN_S = 900


@dataclass
class Line:
    engine: Engine
    folder: Path
    files: tuple[str, ...]

    def compose(self, *words: str, timeout: float = SLOW_S, check: bool = True) -> str:
        files = [word for name in self.files for word in ("-f", str(self.folder / name))]
        # Two processors, whatever this machine has: a replica, and a fit beside it.
        told = {"DATA": str(self.folder / "data"), "WORKER_CPUS": "4", "COMPOSE_PROFILES": "", "COMPOSE_FILE": ""}
        return run([*self.engine.compose_words, "-p", PROJECT, *files, *words], timeout=timeout, check=check, env=told)

    def linewatch(self, *words: str, check: bool = True) -> str:
        return self.compose("exec", "-T", "schedule", "linewatch", *words, check=check)

    def up(self) -> None:
        try:
            self.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_WITHIN_S), timeout=UP_WITHIN_S + 60)
        except AssertionError as error:
            states = self.compose("ps", "--all", check=False)
            raise AssertionError(f"{error}\n{states}\n{self.compose('logs', '--tail', '25', check=False)}") from None

    def containers(self) -> list[dict[str, Any]]:
        """As `docker inspect` tells of them."""
        ids = self.compose("ps", "--all", "--quiet").split()
        return json.loads(self.engine.docker("inspect", *ids)) if ids else []

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    def left(self) -> dict[str, str]:
        """What of it is still there, by kind."""
        label = f"label=com.docker.compose.project={PROJECT}"
        return {
            kind: self.engine.docker(*words, "--quiet", "--filter", label).strip()
            for kind, words in {
                "containers": ("ps", "--all"), "networks": ("network", "ls"), "volumes": ("volume", "ls"),
            }.items()
        }  # fmt: skip


def copy_of(folder: Path, engine: Engine, files: tuple[str, ...], *, tls: bool) -> Line:
    """Secrets are drawn in a copy, so that none lies in the checkout."""
    there = folder / "compose"
    shutil.copytree(INFRA / "compose", there, ignore=shutil.ignore_patterns("secrets", "data", ".env"))
    run([str(there / "prepare.sh"), *(["--tls"] if tls else [])], timeout=60)
    # Pytest's folders are their owner's alone, and a container's user is another.
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    return Line(engine, there, files)


def draw_photographs(folder: Path, good: int, stream: int) -> None:
    """Good flanges to fit on, and a stream of images: 40 different ones, again and again under other names."""
    for name, seeds in (("good", range(good)), ("seen", range(1000, 1040))):
        (folder / name).mkdir(parents=True)
        for seed in seeds:
            kind = "scratch" if name == "seen" and seed % 8 == 0 else None
            Image.fromarray(draw("flange", seed, kind, 256).image).save(folder / name / f"{seed}.jpg", quality=92)
    seen = sorted((folder / "seen").iterdir())
    (folder / "stream").mkdir()
    for number in range(stream):
        shutil.copyfile(seen[number % len(seen)], folder / "stream" / f"{number:05d}.jpg")
