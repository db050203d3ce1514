"""`linewatch plan` as a person meets it: what it prints, what it writes, what it refuses."""

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from jobs.cli import main
from jobs.plan.assumptions import Assumptions
from jobs.plan.picture import CAMERAS
from tests.jobs.plan.constant import constant

PAGE = Path(__file__).parents[3] / "docs/planning.md"
SMALL = ("--cameras", "20", "--fps", "0.5", "--assume", "successor_s=1", "--assume", "burst_s=2")


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    file = tmp_path / "mine.json"
    file.write_text(constant(prepare=0.004, score=0.025, cut=0.001, commit=0.003).model_dump_json())
    return file


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = plan(*arguments)
    assert result.exit_code != 0, result.output
    assert "Traceback" not in result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: "), result.output
    return last


def test_a_plan_says_what_is_needed_why_and_what_breaks_first(measured: Path, tmp_path: Path) -> None:
    result = plan("--measured", measured, *SMALL, "--json", tmp_path / "plan.json")
    assert result.exit_code == 0, result.output
    for words in ("replicas", "ended by score", "brokers", "What breaks first", "placement=hash", "twice the cameras"):
        assert words in result.output
    assert "ASSUMED:" not in result.output
    told = json.loads((tmp_path / "plan.json").read_text())
    assert told["needs"]["images_per_s"] == 10
    assert told["with_twice_the_cameras"]["images_per_s"] == 20
    assert [one["scenario"] for one in told["simulated"]] == ["calm", "burst", "death", "roll"]
    assert told["assumptions"]["burst_s"] == {"value": 2.0, "means": "and so long"}
    assert all(one["means"] for one in told["assumptions"].values())
    assert told["breaks"][0]["bears"] > 1


def test_the_shipped_times_of_a_processor_are_used_and_named() -> None:
    result = plan(*SMALL)
    assert result.exit_code == 0, result.output
    assert "service times: Intel(R) Xeon(R) Processor, 2 cores, 2026-" in result.output


def test_a_gpu_by_its_peak_says_so(measured: Path) -> None:
    result = plan(*SMALL, "--gpu", "h100", "--assume-peak")
    assert result.exit_code == 0, result.output
    assert "ASSUMED: no h100 was measured: scoring at 5% of its published 989 TFLOP/s" in result.output
    measured.write_text(measured.read_text().replace('"kind":"cpu"', '"kind":"cuda"'))
    given = plan(*SMALL, "--gpu", "h100", "--measured", measured)
    assert "ASSUMED:" not in given.output
    assert "GPUs" in given.output


def test_the_picture_goes_up_to_ten_thousand_cameras(measured: Path, tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    result = plan("--measured", measured, *SMALL, "--plot", picture, "--json", tmp_path / "plan.json")
    assert result.exit_code == 0, result.output
    with Image.open(picture) as drawn:
        assert drawn.width > 800
    rows = json.loads((tmp_path / "plan.json").read_text())["grown"]
    assert [row["cameras"] for row in rows] == list(CAMERAS)
    assert CAMERAS[-1] == 10_000
    assert all(a["replicas"] <= b["replicas"] and a["brokers"] <= b["brokers"] for a, b in itertools.pairwise(rows))


def test_a_gpu_that_is_not_there_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "torch finds no GPU here" in refused("measure", "--device", "cuda", "--json", tmp_path / "gpu.json")


def test_what_is_wrong_is_one_line(measured: Path, tmp_path: Path) -> None:
    assert "no service times of l4, for none were measured" in refused("--gpu", "l4")
    assert "'big' is no size: write bytes, or a number with KB or MB" in refused("--size", "big")
    assert "is no size" in refused("--size", "5TB")
    assert "'tea=5': write NAME=VALUE with one of utilisation" in refused("--assume", "tea=5")
    assert "retention_days=-1" in refused("--assume", "retention_days=-1")
    assert "ends in .png" in refused("--plot", tmp_path / "plan.pdf")
    assert "is more than one replica bears" in refused("--measured", measured, "--fps", 100)
    assert "can't be read: No such file" in refused("--measured", tmp_path / "none.json")
    (tmp_path / "text.json").write_text("text")
    assert "is not JSON" in refused("--measured", tmp_path / "text.json")
    (tmp_path / "other.json").write_text("{}")
    assert "has no service times as `linewatch plan measure` writes them" in refused(
        "--measured", tmp_path / "other.json"
    )
    assert "there is no folder" in refused("--json", tmp_path / "none" / "plan.json")


@pytest.mark.parametrize("name", Assumptions.model_fields)
def test_every_assumption_is_on_the_page(name: str) -> None:
    value = getattr(Assumptions(), name)
    shown = value if isinstance(value, str) else f"{value:g}"
    assert f"| `{name}` | `{shown}` | {Assumptions.model_fields[name].description} |" in PAGE.read_text()
