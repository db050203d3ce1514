"""The script that measures a GPU does all of it here, with tiny counts and the detector's own needs alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from model import ModelError
from model.bench.peaks import peak_of, published_peak_tflop_per_s
from model.bench.replicas import _each

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "infra" / "gpu" / "measure.sh"
ABSENT = ("ray", "kafka", "minio", "rich", "click", "fastapi", "scipy", "sklearn", "pandas", "openvino", "nncf",
          "torchvision", "anomalib", "matplotlib", "pydantic_settings")  # fmt: skip


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment that has none of these, for every process that the script starts."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\nopen({str(tmp_path / 'bare')!r}, 'a').write('.')\n"
    )
    given = {"PYTHONPATH": str(tmp_path / "site"), "PYTHON": sys.executable, "PEER": "false", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **given}


def _run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), *arguments], env=env, capture_output=True, text=True, check=False)


def test_the_dry_run_measures_everything_with_the_detectors_needs_alone(bare: dict[str, str], tmp_path: Path) -> None:
    ran = _run("--dry-run", "--out", str(tmp_path / "out"), env=bare)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len((tmp_path / "bare").read_text()) >= 4  # the script's check, the measurement, its replica, the summary
    report = json.loads((tmp_path / "out" / "lite0.json").read_text())
    assert report["device"] == "rehearsal"
    assert set(report["batches"]) == {"1", "2"}
    assert {"ours_torch", "ours_torch_fp16"} <= set(report["batches"]["2"]["images_per_s"])
    assert report["queued"]["queued"]["median"] > 0
    assert report["share_of_published_peak"] is None
    assert "no peak is published for a CPU" in report["published_peak"]["told"]
    stages = report["stages"]
    assert stages["by"] == "clock"
    assert set(stages["ms_per_image"]) == {
        "device: sent", "device: teacher", "device: students", "device: fetched",
        "host: launched", "host: judged", "host: decoded", "host: cut and encoded",
    }  # fmt: skip
    assert report["replicas"]["images_per_s_of_replicas"]["1"] > 0
    shifts = report["agreement"]["largest_shift_of_a_score"]
    assert shifts["ours_torch"] < 1e-4
    assert shifts["ours_torch_fp16"] <= 0.03  # or float32 was taken
    described = report["agreement"]["described"]["ours_torch_fp16"]
    assert described["recorded"] > 0
    assert sum(described["products"].values()) == 1
    assert report["nvjpeg"] == {"skipped": "nvJPEG decodes on CUDA devices"}
    for told in (
        "from JPEG bytes to masks",
        "by 1 replicas side by side",
        "share of the published peak",
        "ms an image",
    ):
        assert told in ran.stdout


def test_the_script_says_what_is_missing() -> None:
    def told(*arguments: str, **variables: str) -> str:
        ran = _run(*arguments, env={**os.environ, **variables})
        assert ran.returncode == 2
        return ran.stderr

    if not torch.cuda.is_available():
        assert "torch finds no CUDA device here; --dry-run tries the script on the CPU" in told(PYTHON=sys.executable)
    assert "infra/gpu/measure.sh --dry-run" in told("--help")
    assert "--out needs a folder" in told("--out")


def test_cards_have_the_peak_of_their_data_sheet_or_none() -> None:
    assert published_peak_tflop_per_s("NVIDIA H100 80GB HBM3") == 989.4
    assert published_peak_tflop_per_s("NVIDIA H100 PCIe") == 756.0
    assert published_peak_tflop_per_s("NVIDIA H200") == 989.4
    assert published_peak_tflop_per_s("NVIDIA A100-SXM4-80GB") == 312.0
    assert published_peak_tflop_per_s("NVIDIA L40S") == 362.0
    assert published_peak_tflop_per_s("NVIDIA L4") == 121.0
    assert published_peak_tflop_per_s("NVIDIA A1000") is None
    assert "no peak" in str(peak_of("rehearsal")["told"])


def test_replicas_that_end_or_say_nothing_are_told() -> None:
    rates: Queue[float] = Queue()
    rates.put(2.0)
    rates.put(3.0)
    alive, dead = SimpleNamespace(exitcode=None), SimpleNamespace(exitcode=-9)
    assert _each(cast(Any, rates), cast(Any, [alive, alive]), 300) == [2.0, 3.0]
    with pytest.raises(ModelError, match="one ended with status -9"):
        _each(cast(Any, rates), cast(Any, [alive, dead]), 300)
    with pytest.raises(ModelError, match="nothing was heard in 0 s"):
        _each(cast(Any, rates), cast(Any, [alive]), 0)
