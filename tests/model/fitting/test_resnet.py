"""ResNet teachers: the published recipe, and statistics beside it. Trained weights are not at hand, random ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import Engine, Fit, FitOptions, Frame, image_auroc
from model.bench.random_teacher import random_teacher
from model.images.tolerance import NOTHING
from tests.model.conftest import SIZE


def stained(frame: Frame, seed: int) -> Frame:
    rng = np.random.default_rng(seed)
    pixels = frame.pixels.copy()
    top, left = rng.integers(16, 40, 2)
    pixels[top : top + 9, left : left + 9] = np.clip(pixels[top : top + 9, left : left + 9].astype(int) + 70, 0, 255)
    return Frame(pixels, frame.width, frame.height)


@pytest.mark.parametrize("evidence", ["statistics", "student"])
def test_a_resnet_of_random_weights_sees_stains_by_either_evidence(
    evidence: str, good_frames: list[Frame], tmp_path: Path
) -> None:
    options = FitOptions.model_validate(
        {"backbone": "resnet18", "size": SIZE, "steps": 30, "batch": 8, "evidence": evidence, "tolerate": NOTHING}
    )
    with random_teacher("resnet18", tmp_path):
        bundle = Fit("disc", good_frames[:16], good_frames[16:], options).run()
        assert (bundle.manifest.evidence is not None) == (evidence == "statistics")
        frames = [*good_frames[16:], *(stained(frame, seed) for seed, frame in enumerate(good_frames[16:]))]
        labels = [0] * (len(frames) // 2) + [1] * (len(frames) // 2)
        scores = {}
        for backend in ("torch", "openvino"):
            engine = Engine(lambda _: bundle, device="cpu", backend=backend)  # type: ignore[arg-type]
            scores[backend] = [one.score for one in engine.score(frames, ["disc"] * len(frames))]
    assert image_auroc(scores["torch"], labels) > 0.95
    assert np.allclose(scores["torch"], scores["openvino"], rtol=2e-3)
