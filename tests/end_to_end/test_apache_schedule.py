"""Retraining, unattended: what is new is fitted, judged, promoted and seen in events; what is spoiled is refused."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from jobs.drawing import KINDS, draw
from jobs.fitting.datasets import Datasets
from jobs.fitting.release import Releases
from model import ImageLimits
from tests.end_to_end.plant import IMAGE_SIZE, Plant, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]


class Scheduler:
    """`linewatch schedule` in a process of its own, with every line that it says."""

    def __init__(self, plant: Plant, folder: Path, source: Path) -> None:
        values = plant.settings.public()
        values["products"] = {"flange": {"source": str(source), "cron": "*/10 * * * * *"}}
        config = folder / "linewatch.yaml"
        config.write_text(yaml.safe_dump(values))
        self._log = folder / "schedule.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).parent / "linewatch", "-c", config, "schedule"], stdout=log, stderr=log
            )

    def lines(self, word: str) -> list[str]:
        return [line for line in self._log.read_text().splitlines() if word in line]

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(120) == 0, self._log.read_text()


def test_a_scheduled_run_promotes_what_is_better_and_refuses_what_is_spoiled(
    apache_plant: Plant, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    save_drawn(source, "flange", range(900, 910))
    before = apache_plant.registry.champion("flange").champion.version
    scheduler = Scheduler(apache_plant, tmp_path, source)
    try:
        wait_for("a promotion", lambda: scheduler.lines("promoted"), 240)
        version = apache_plant.registry.champion("flange").champion.version
        assert version != before
        ledger = apache_plant.ledger()
        deadline = time.monotonic() + 60
        while version not in {seen.event.model_version for seen in list(ledger.seen.values())}:
            assert time.monotonic() < deadline
            apache_plant.send(ledger, "flange", fps=20, camera="/schedule/cam")
        ledger.close()

        save_drawn(tmp_path / "spoiled", "flange", range(950, 960), spoiled=True)
        for image in (tmp_path / "spoiled").iterdir():  # at once: a run is due every ten seconds
            image.rename(source / image.name)
        wait_for("a refusal", lambda: scheduler.lines("refused"), 180)
        assert "new images defective" in scheduler.lines("refused")[0]
        assert apache_plant.registry.champion("flange").champion.version == version
    finally:
        scheduler.close()


def test_a_fit_on_spoiled_images_is_refused_by_the_gate_with_its_reason(apache_plant: Plant, tmp_path: Path) -> None:
    save_drawn(tmp_path / "spoiled", "twill", range(800, 832), spoiled=True)
    champion = apache_plant.registry.champion("twill").champion.version
    datasets = Datasets(apache_plant.store)
    before = datasets.latest("twill")
    spoiled = datasets.ingest(tmp_path / "spoiled", "twill", limits=ImageLimits()).snapshot
    version = apache_plant.fit("twill")["twill"]
    verdict = Releases(apache_plant.settings, apache_plant.store).consider("twill", version)
    datasets.restore(before, instead_of=spoiled)
    assert not verdict.accepted
    assert any("defective" in reason for reason in verdict.reasons)
    assert apache_plant.registry.champion("twill").champion.version == champion


def save_drawn(folder: Path, product: str, seeds: range, *, spoiled: bool = False) -> None:
    """Good images; with ``spoiled`` a quarter of them black and a quarter defective."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        kind = KINDS[product][seed % len(KINDS[product])] if spoiled and seed % 4 == 1 else None
        image = draw(product, seed, kind, IMAGE_SIZE).image
        if spoiled and seed % 4 == 3:
            image = np.zeros_like(image) + np.uint8(seed % 7)
        Image.fromarray(image).save(folder / f"{seed}.png")
