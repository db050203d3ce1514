"""Real photographs: few steps, enough to tell a broken bottle from a good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import Engine, Fit, FitOptions, cut, image_auroc, read_frame

pytestmark = pytest.mark.data
SIZE = 128


def test_a_short_fit_tells_broken_bottles_from_good_ones(photographs: Path) -> None:
    good = [read_frame(path.read_bytes(), SIZE) for path in sorted((photographs / "bottle/train/good").iterdir())[:72]]
    tested = sorted((photographs / "bottle/test").glob("*/*"))
    bundle = Fit("bottle", good[:56], good[56:], FitOptions(size=SIZE, steps=20)).run()
    results = Engine(lambda _: bundle, device="cpu").score(
        [read_frame(path.read_bytes(), SIZE) for path in tested], ["bottle"] * len(tested)
    )
    labels = [int(path.parent.name != "good") for path in tested]
    assert image_auroc([result.score for result in results], labels) > 0.97
    for result in results:
        findings = cut(result)
        assert findings.mask.shape == (512, 512)
        assert bool(findings.regions) == (result.verdict != "OK")
