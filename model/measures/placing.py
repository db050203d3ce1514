"""Whether registration helps: told by good images alone, for a place in common is not yet a reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from model.evidence.statistics import DIRECTIONS, STRIDES
from model.images.frames import Frame, normalised
from model.images.registration import Registration, straightened
from model.measures.baselines import Positional
from model.measures.probe import PROBE_IMAGES, Lead, Sensitivity, lead, spoiled
from model.teachers import load_teacher

_BATCH = 16


@torch.inference_mode()
def gain(
    registration: Registration,
    train: Sequence[Frame],
    held_out: Sequence[Frame],
    backbone: str,
    device: torch.device | str = "cpu",
) -> Lead:
    """By how much made-up defects are told apart better once images are registered (model/measures/probe.py).

    Of a gaussian at each place, fitted on the good frames [S, S] as they lie and once registered. Raises WeightsError.
    """
    teacher = load_teacher(backbone, torch.device(device))
    spec, size = teacher.spec, train[0].pixels.shape[0]
    good = held_out[:PROBE_IMAGES]
    copies = [spoiled(frame, np.random.default_rng((0, index)), size) for index, frame in enumerate(good)]
    each = len(copies[0])

    def levels(frames: Sequence[Frame]) -> list[list[torch.Tensor]]:
        chunks = (frames[start : start + _BATCH] for start in range(0, len(frames), _BATCH))
        return [teacher(normalised(chunk, spec.mean, spec.std, torch.device(device))) for chunk in chunks]

    def sensitivity(frames: Sequence[Frame], seen: Sequence[Frame]) -> Sensitivity:
        gaussian = Positional(spec, size, spec.fine, STRIDES[0], DIRECTIONS[0])
        gaussian.fit(levels(frames))
        peaks = np.concatenate([gaussian.maps(batch).amax(dim=(1, 2)).cpu().numpy() for batch in levels(seen)])
        return Sensitivity.of(peaks[: len(good)].tolist(), peaks[len(good) :].reshape(-1, each).tolist())

    seen = [*good, *(copy for of in copies for copy in of)]
    registered = [[straightened(frame, registration.pose(frame)) for frame in frames] for frames in (train, seen)]
    return lead(sensitivity(*registered), sensitivity(train, seen))
