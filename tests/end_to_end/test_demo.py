"""The demo as a person runs it, on a machine without Java: it says so, counts right, and leaves nothing behind."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest
from PIL import Image

from jobs.drawing import draw_dataset

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.timeout(1600)]
MARK = "LINEWATCH_LOCAL__TEST_MARK"


def processes_with(mark: str) -> list[str]:
    """Command lines of every process that inherited the mark in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(" ".join(process.cmdline())[:200])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def path_without_java(folder: Path) -> str:
    """A PATH with the few programs that Ray and the servers call, and no java."""
    folder.mkdir()
    for name in ("sh", "bash", "ps", "uname", "env", "cat", "ls", "grep", "git"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    return str(folder)


def test_without_java_the_demo_works_on_the_fallback_and_says_so(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "data", "flange", train=24, good=5, defective=5, size=160)
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [
            Path(sys.executable).parent / "linewatch", "demo", "--data", tmp_path / "data" / "flange",
            "--steps", "10", "--no-retrain", "--json", tmp_path / "figures.json", "--out", tmp_path / "out",
        ],
        env={**os.environ, "PATH": path_without_java(tmp_path / "bin"), MARK: mark},
        capture_output=True,
        text=True,
        timeout=1500,  # a tenth of it where nothing else runs
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tansu" in done.stdout
    assert "java" in done.stdout
    assert "at least once" in done.stdout
    assert not processes_with(mark)

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["images"] == figures["events"] == 10
    assert (figures["lost"], figures["doubled"], figures["deadletters"]) == (0, 0, 0)
    assert figures["servers"]["kafka"].startswith("tansu")
    assert set(figures["products"]) == {"flange"}
    page, sheet = (Path(path) for path in figures["pages"])
    assert "flange" in page.read_text()
    with Image.open(sheet) as picture:
        assert picture.width > 500
