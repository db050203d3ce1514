"""What is measured under another light and place, and what must still be found there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from click.testing import CliRunner

from jobs.benchmark.shifts import SHIFTS, TINT, discoloured_found, under_shifts
from jobs.cli import main
from jobs.drawing import draw_dataset
from model import Frame

GRAY = [Frame(np.full((64, 64, 3), 120, np.uint8), 64, 64)] * 4


def by_brightness(frames: Sequence[Frame]) -> list[Any]:
    """Rejects what is darker than 100 gray levels on average, and scores by darkness."""
    means = [frame.pixels.mean() for frame in frames]
    return [SimpleNamespace(score=255 - mean, verdict="NotOK" if mean < 100 else "OK") for mean in means]


def test_each_shift_has_its_own_rates() -> None:
    found = under_shifts(by_brightness, GRAY, [False, False, True, True])
    assert set(found) == set(SHIFTS)
    assert found["light x0.7"] == {"false_reject_rate": 1.0, "escape_rate": 0.0, "image_auroc": 0.5}
    assert found["shift 6 px"] == {"false_reject_rate": 0.0, "escape_rate": 1.0, "image_auroc": 0.5}


def test_a_discolouration_is_drawn_on_all_or_a_ninth_of_the_image() -> None:
    seen: list[Frame] = []

    def judge(frames: Sequence[Frame]) -> list[Any]:
        seen.extend(frames)
        return [SimpleNamespace(verdict="NotOK" if index else "OK") for index in range(len(frames))]

    assert discoloured_found(judge, GRAY) == {"all": 0.75, "a ninth": 0.75}
    shares = [(frame.pixels[..., 1] != 120).mean() for frame in seen]
    assert shares[:4] == [1.0] * 4
    assert np.allclose(shares[4:], 1 / 9, atol=0.01)
    assert seen[0].pixels[0, 0].tolist() == [round(120 * part) for part in TINT]


def test_the_command_measures_under_shifts(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "drawn", "flange", train=20, good=3, defective=3, size=96)
    arguments = ["benchmark", str(tmp_path / "drawn"), "--seeds", "1", "--steps", "2", "--size", "64", "--shifted"]
    arguments += ["-m", "fusion", "-m", "knn", "-m", "fine", "-m", "mahalanobis", "--tolerate", "light=30%"]
    arguments += ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for text in ("Under shifts", "light x0.7", "found: a ninth discoloured", "Spearman's rank correlation"):
        assert text in result.output
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    (seed,) = figures["methods"]["fusion"]["categories"]["flange"]["seeds"]
    assert set(seed["shifted"]) == set(SHIFTS)
    assert 0 <= seed["discoloured"]["all"] <= 1
    assert 0 <= seed["sensitivity"] <= 1
    assert figures["config"]["tolerate"]["light"] == 0.3
    assert set(figures["probe"]) == {"flange"}


def test_the_command_measures_in_another_light_and_place(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "drawn", "flange", train=20, good=3, defective=3, size=96)
    arguments = ["benchmark", str(tmp_path / "drawn"), "--seeds", "1", "--steps", "2", "--size", "64", "--align"]
    arguments += ["--exposure", "border", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "out" / "figures.json").read_text())["config"]
    assert config["exposure"] == "border"
    assert config["align"]
