"""The bench of the calibration: right on images of one kind, and able to tell when the stated interval is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jobs.bench import calibration as bench
from jobs.cli import main
from tests.pipeline.tiny import texture


def scores_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(4.0, size=count)


@pytest.mark.parametrize("target", bench.TARGETS)
def test_scores_of_one_kind_are_covered(target: float) -> None:
    rows = [bench.judge_splits(scores_of(300, seed), target, 20, seed) for seed in range(15)]
    assert np.mean([row.coverage for row in rows]) >= 0.93
    assert np.mean([row.mean_rate for row in rows]) == pytest.approx(target, rel=0.25)
    mean = np.mean([row.mean_absolute_error for row in rows])
    assert mean == pytest.approx(rows[0].noise, rel=0.25)
    for row in rows:
        assert row.coverage_judged <= row.coverage_pooled
        assert (row.calibrating, row.judged) == (150, 150)


def test_a_threshold_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bench.threshold_for
    for wrong in (0.7, 1.5):
        monkeypatch.setattr(bench, "threshold_for", lambda scores, rate, wrong=wrong: wrong * honest(scores, rate))
        assert bench.judge_splits(scores_of(400), 0.05, 20).coverage < 0.5


def test_the_law_of_the_counts_is_beta_binomial() -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the developers' scikit-learn")
    law = bench.count_law(80, 4.05, 80)
    assert law == pytest.approx(stats.betabinom(80, 4.05, 76.95).pmf(np.arange(81)), abs=1e-12)
    assert law.sum() == pytest.approx(1)
    least, most = bench.prediction_interval(law)
    assert law[:least].sum() <= 0.025 < law[: least + 1].sum()
    assert law[most + 1 :].sum() <= 0.025 < law[most:].sum()


def test_a_random_half_obeys_that_law_whatever_the_distribution() -> None:
    rng = np.random.default_rng(3)
    counts = []
    for _ in range(2000):
        order = rng.permutation(100)
        counts.append(int((order[50:] > np.sort(order[:50])[-5]).sum()))
    least, most = bench.prediction_interval(bench.count_law(50, 5, 50))
    assert 0.95 <= np.mean([least <= count <= most for count in counts]) < 0.99


def test_the_command_writes_every_category(tmp_path: Path) -> None:
    for place, seeds in {"train/good": range(45), "test/good": range(50, 60), "test/spot": range(60, 62)}.items():
        folder = tmp_path / "cobbles" / place
        folder.mkdir(parents=True)
        for seed in seeds:
            (folder / f"{seed:03d}.png").write_bytes(texture(seed, spot=place.endswith("spot")))
    file = tmp_path / "figures.json"
    arguments = ["bench", "calibration", str(tmp_path), "--json", str(file), "--steps", "2", "--size", "64"]
    arguments += ["--splits", "3"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert figures["config"]["splits"] == 3
    assert figures["categories"]["cobbles"]["unseen_good_images"] == 40
    assert set(figures["categories"]["cobbles"]["targets"]) == {"0.01", "0.05"}
    assert 0 <= figures["categories"]["cobbles"]["targets"]["0.05"]["coverage"] <= 1
    assert "5% aimed at" in result.output
    assert "1% aimed at, 0% to 16.8% stated from 20 images (too few: 162 are needed)" in result.output
