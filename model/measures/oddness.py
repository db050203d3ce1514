"""Which good images are most unlike the others: what a person should look at before a fit learns from them.

One wrong image among the good ones teaches that defects are good, and among the held-out ones it moves the threshold
so far that defects pass. Each image is judged by a gaussian at each place (model/evidence/gaussian.py) that was fitted
on the other half of the images, so that none is judged by what was learned from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.evidence.statistics import DIRECTIONS, STRIDES
from model.images.frames import Frame, normalised
from model.measures.baselines import Positional
from model.teachers import load_teacher

LEAST_IMAGES = 10
_BATCH = 16
ODD = 3.5
"""Deviations above the median from which on an image is called odd."""
_MAD = 1.4826
"""Times the median distance from the median it is a normal distribution's deviation."""


@dataclass(frozen=True, eq=False)
class Oddness:
    """z: deviations above the median of all images, [N]. maps: where, float32 [N, S / 4, S / 4], in multiples of what
    is odd: an image's largest value is 1 where its z is ODD."""

    z: np.ndarray
    maps: np.ndarray


@torch.inference_mode()
def oddness(
    frames: Sequence[Frame],
    backbone: str,
    size: int,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, int], None] = lambda _done, _of: None,
) -> Oddness:
    """Judge each of N good frames [size, size] by the others.

    on_step: called with (images seen, of): each is seen twice. Raises WeightsError, ValueError for fewer than
    LEAST_IMAGES.
    """
    if len(frames) < LEAST_IMAGES:
        raise ValueError(f"{len(frames)} images: what is odd among fewer than {LEAST_IMAGES} nobody can tell")
    teacher = load_teacher(backbone, torch.device(device))
    spec, total = teacher.spec, 2 * len(frames)
    levels: list[list[torch.Tensor]] = []
    for start in range(0, len(frames), _BATCH):
        chunk = frames[start : start + _BATCH]
        # Images take turns in the halves, so that those of one day or camera are in both.
        batch = teacher(normalised(chunk, spec.mean, spec.std, torch.device(device)))
        levels += [[level[row : row + 1] for level in batch] for row in range(len(chunk))]
        on_step(len(levels), total)
    halves = [list(range(first, len(frames), 2)) for first in (0, 1)]
    z, maps = np.empty(len(frames)), np.empty((len(frames), size // 4, size // 4), dtype=np.float32)
    for mine, others in (halves, halves[::-1]):
        gaussian = Positional(spec, size, spec.fine, STRIDES[0], DIRECTIONS[0])
        gaussian.fit([levels[index] for index in others])
        for index in mine:
            maps[index] = gaussian.maps(levels[index])[0].cpu().numpy()
            on_step(len(frames) + index, total)
        logs = np.log(maps[mine].max(axis=(1, 2)))
        middle = np.median(logs)
        deviation = max(1e-6, _MAD * float(np.median(np.abs(logs - middle))))
        z[mine] = (logs - middle) / deviation
        maps[mine] /= np.exp(middle + ODD * deviation)
    on_step(total, total)
    return Oddness(z, maps)
