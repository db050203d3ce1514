"""The short form of `make chaos`: everything that dies, dies at least once, and every image is counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.apache_kafka import find_apache
from infra.local.program import Missing
from tests.end_to_end.conftest import Plants

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]
IMAGES = 1200


def test_nothing_is_lost_or_doubled_while_everything_dies(plants: Plants, tmp_path: Path) -> None:
    found = find_apache()
    if isinstance(found, Missing):
        pytest.skip(f"Apache Kafka: {found.why}. {found.how_to_get}")
    plants.close()  # the run has a plant of its own
    every = ("replica=12", "stopped=28", "broker=24", "store=20", "node=30")
    linewatch = str(Path(sys.executable).with_name("linewatch"))
    command = [linewatch, "chaos", "-n", str(IMAGES), "--rate", "30", "--seed", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LINEWATCH_", "RAY_"))}
    done = subprocess.run(
        [*command, *(word for one in every for word in ("--every", one)), "--folder", "chaos", "--json", "chaos.json"],
        cwd=tmp_path, env=environment, text=True, timeout=560,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert (tmp_path / "chaos.json").exists(), done.stdout[-4000:]
    told = json.loads((tmp_path / "chaos.json").read_text())
    assert told["images"] >= IMAGES
    assert (told["lost"], told["doubled"], told["deadletters"], told["pending"]) == (0, 0, 0, 0)
    assert told["events"] == told["images"]
    assert told["masks_missing"] == told["masks_wrong"] == told["masks_orphaned"] == 0
    assert all(told["kills"][kind] >= 1 for kind in ("replica", "broker", "store", "node", "stopped")), told["kills"]
    assert told["exactly_once"]
    timeline = (tmp_path / "chaos" / "timeline.jsonl").read_text()
    assert "node: could not be done" not in timeline, timeline
    assert done.returncode == 0
