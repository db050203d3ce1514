"""Rows of the evidence: the same fit, and what another join or other evidence makes of it."""

import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from click.testing import CliRunner

from jobs.benchmark.evidence_rows import EVIDENCE_ROWS, EvidenceOf, EvidenceRow
from jobs.cli import main
from model import Engine, Fit, FitOptions, Frame, ModelBundle


def frames(count: int, seed: int) -> list[Frame]:
    rng = np.random.default_rng(seed)
    ground = np.random.default_rng(0).integers(60, 200, (64, 64, 3))
    noisy = [np.clip(ground + rng.normal(0, 8, ground.shape), 0, 255).astype(np.uint8) for _ in range(count)]
    return [Frame(pixels, 64, 64) for pixels in noisy]


@pytest.fixture(scope="module")
def fitted() -> tuple[Fit, ModelBundle]:
    fit = Fit("part", frames(12, 1), frames(8, 2), FitOptions(size=64, steps=3, corruptions=1, batch=8))
    return fit, fit.run()


def z_of(peaks: np.ndarray, of: np.ndarray) -> np.ndarray:
    return (np.log(peaks) - np.log(of).mean(axis=0)) / np.log(of).std(axis=0, ddof=1)


@pytest.mark.parametrize("row", EVIDENCE_ROWS)
def test_a_rows_score_is_its_join_of_what_it_sees(fitted: tuple[Fit, ModelBundle], row: EvidenceRow) -> None:
    fit, bundle = fitted
    evidence, seen = EvidenceOf(row, fit, bundle), frames(3, 3)
    maps, held_out = (np.stack(list(evidence.maps(images))) for images in (seen, fit.held_out))
    assert maps.shape[1] == (4 if row == "with_student" else 3)
    peaks, of = (found.max(axis=(2, 3))[:, 1:].astype(np.float64) for found in (maps, held_out))
    z = z_of(peaks, of)
    joins = {"largest_z": z.max(axis=1), "sum_of_z": z.sum(axis=1) / math.sqrt(2)}
    joined = joins.get(row, np.log(np.exp(z).mean(axis=1)))
    expected = np.exp(joined * np.log(of).std(axis=0, ddof=1).mean())
    assert [one.score for one in evidence.judge(seen)] == pytest.approx(expected.tolist(), rel=1e-4)


def test_rows_see_what_the_default_sees_but_for_what_they_change(fitted: tuple[Fit, ModelBundle]) -> None:
    """Statistics of the residual are others; all other maps are those that serve."""
    fit, bundle = fitted
    seen = frames(3, 3)
    served = Engine(lambda _: bundle, device="cpu", backend="torch").score(seen, ["part"] * 3)
    of_row = {row: np.stack(list(EvidenceOf(cast(EvidenceRow, row), fit, bundle).maps(seen))) for row in EVIDENCE_ROWS}
    for maps in of_row.values():
        assert np.allclose(
            maps[:, 0], np.stack([one.place_map for one in served if one.place_map is not None]), rtol=1e-4
        )
    assert np.array_equal(of_row["largest_z"], of_row["sum_of_z"])
    assert np.array_equal(of_row["largest_z"], of_row["with_student"][:, :3])
    assert not np.allclose(of_row["largest_z"][:, 1:], of_row["on_residual"][:, 1:], rtol=0.1)


@pytest.mark.parametrize("changed", ["--tiles", "--align", "--exposure=image"])
def test_methods_that_see_images_as_they_are_refuse_changed_ones(tmp_path: Path, changed: str) -> None:
    for method in ("on_residual", "knn"):
        done = CliRunner().invoke(main, ["benchmark", str(tmp_path), "-m", "fusion", "-m", method, changed])
        assert done.exit_code == 2
        assert f"{method}: sees whole images as they are" in " ".join(done.output.split())
