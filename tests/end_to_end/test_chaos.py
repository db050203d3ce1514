"""The short form of `make chaos`: everything that dies, dies at least once, and every image is counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.network import find_namespaces
from tests.end_to_end.conftest import Plants, skip_without_apache

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache, pytest.mark.timeout(1600)]
IMAGES = 1200
NEVER = [f"--every={kind}=0" for kind in ("replica", "stopped", "broker", "store", "node")]


def run_chaos(tmp_path: Path, images: int, rate: int, *options: str) -> tuple[int, dict, str]:
    """Exit status, figures and timeline."""
    linewatch = str(Path(sys.executable).with_name("linewatch"))
    command = [linewatch, "chaos", "-n", str(images), "--rate", str(rate), "--seed", "1", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LINEWATCH_", "RAY_"))}
    done = subprocess.run(
        [*command, "--folder", "chaos", "--json", "chaos.json"], cwd=tmp_path, env=environment, text=True, timeout=1500,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert (tmp_path / "chaos.json").exists(), done.stdout[-4000:]
    told = json.loads((tmp_path / "chaos.json").read_text())
    assert told["images"] >= images
    assert (told["lost"], told["doubled"], told["deadletters"], told["pending"]) == (0, 0, 0, 0)
    assert told["events"] == told["images"]
    assert told["masks_missing"] == told["masks_wrong"] == told["masks_orphaned"] == 0
    assert told["exactly_once"]
    assert (tmp_path / "chaos" / "chaos.png").stat().st_size > 10_000
    return done.returncode, told, (tmp_path / "chaos" / "timeline.jsonl").read_text()


def test_nothing_is_lost_or_doubled_while_everything_dies(plants: Plants, tmp_path: Path) -> None:
    skip_without_apache()
    plants.close()  # the run has a plant of its own
    # At set times, while images come: on a busy machine endless ones come faster than the plant can recover from them.
    times = {"replica": (6, 18, 30), "stopped": (10,), "broker": (14, 34), "store": (3, 22), "node": (26,)}
    faults = [f"--at={kind}={at_s}" for kind, at in times.items() for at_s in at]
    status, told, timeline = run_chaos(tmp_path, IMAGES, 30, *NEVER, *faults)
    assert all(told["kills"][kind] >= 1 for kind in ("replica", "broker", "store", "node", "stopped")), timeline
    assert "node: could not be done" not in timeline, timeline
    assert status == 0


def test_nothing_is_lost_or_doubled_when_a_host_and_then_the_servers_are_cut_off(
    plants: Plants, tmp_path: Path
) -> None:
    skip_without_apache()
    if missing := find_namespaces():
        pytest.skip(f"{missing.why}. {missing.how_to_get}")
    plants.close()
    status, told, timeline = run_chaos(tmp_path, 800, 10, "--hosts", *NEVER, "--at=cut=8", "--at=split=44")
    assert (told["kills"]["cut"], told["kills"]["split"]) == (1, 1)
    assert timeline.count("plugged in again") == 2
    assert status == 0
