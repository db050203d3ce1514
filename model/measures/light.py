"""Whether the light varies among good images in a way that their scores follow: what decides about scaling it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from model.evidence.statistics import DIRECTIONS, STRIDES
from model.images.frames import Frame, normalised
from model.measures.baselines import Positional
from model.measures.metrics import spearman
from model.teachers import load_teacher

MOST_LEARNED, MOST_JUDGED = 200, 400
"""Images that suffice, evenly spread over those that there are."""
FOLLOWED = 2.0
"""Deviations of a rank correlation that chance exceeds in one of 44 products."""
_BATCH = 16


@torch.inference_mode()
def follows_brightness(
    train: Sequence[Frame],
    held_out: Sequence[Frame],
    backbone: str,
    tolerated: float,
    hidden: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> float | None:
    """Rank correlation of held-out good images' scores with their brightness; None where they don't follow it.

    Scores of a gaussian at each place, fitted on the good frames [S, S] of train. They follow brightness where that
    varies by more than `tolerated`, a share (one standard deviation; up to there a fit bears it as it is), and bright
    images score higher than in 43 of 44 products whose light has no part in it. hidden: pixels that are ignored,
    bool [S, S]. Raises WeightsError.
    """
    learned, judged = _spread(train, MOST_LEARNED), _spread(held_out, MOST_JUDGED)
    counted = slice(None) if hidden is None else ~hidden
    brightness = np.array([frame.pixels[counted].mean() for frame in judged])
    if brightness.std() <= tolerated * brightness.mean():
        return None
    teacher = load_teacher(backbone, torch.device(device))
    spec = teacher.spec

    def levels(frames: Sequence[Frame]) -> list[list[torch.Tensor]]:
        chunks = (frames[start : start + _BATCH] for start in range(0, len(frames), _BATCH))
        return [teacher(normalised(chunk, spec.mean, spec.std, torch.device(device))) for chunk in chunks]

    gaussian = Positional(spec, learned[0].size, spec.fine, STRIDES[0], DIRECTIONS[0])
    gaussian.fit(levels(learned))
    scores = [peak for batch in levels(judged) for peak in gaussian.maps(batch).amax(dim=(1, 2)).tolist()]
    found = spearman(brightness.tolist(), scores)
    return found if found * math.sqrt(len(judged) - 1) > FOLLOWED else None  # nan, of equal scores, is not


def _spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    places = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).astype(int))
    return [frames[int(place)] for place in places]
