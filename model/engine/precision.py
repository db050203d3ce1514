"""Whether a product may compute in less than float32: by what that does to scores.

When it is loaded, drawn images stand for the product's own, which a version does not carry: they find what a precision
breaks, say a range that overflows. They are far from good, where a score moves least. What good images lose is seen on
the product's first ones (TorchStudent).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from model.images.frames import Frame

MOST_SHIFT = 0.03
"""Of a score. The review band reaches at least so far to both sides of the threshold (model/verdict/calibration.py): a
score that moves by less may leave OK for NotDecidable, and never for NotOK."""
GPU_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32)
"""Tried in turn. float16 is as fast as bfloat16 and rounds eight times more finely, which standardised targets need:
they magnify what a teacher loses in channels that hardly vary. bfloat16 has float32's range where float16 overflows.
"""
TRIAL_IMAGES = 16
NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_WAVES = (3, 5, 8, 13, 21, 34)


def golden_frames(size: int) -> list[Frame]:
    """A few images that hold something at every scale, dark, light, and with little contrast; always the same."""
    y, x = np.mgrid[:size, :size].astype(np.float64) / size
    rng = np.random.default_rng(0)
    frames = []
    for level, contrast, noise in ((128, 60, 4), (70, 25, 2), (190, 40, 6), (128, 8, 1)):
        turns, phases = rng.uniform(0, math.pi, (2, 3, len(_WAVES)))
        waves = sum(
            np.sin(2 * math.pi * wave * (x[..., None] * np.cos(turns[:, i]) + y[..., None] * np.sin(turns[:, i]))
                   + phases[:, i])
            for i, wave in enumerate(_WAVES)
        )  # fmt: skip
        pixels = level + contrast * waves / math.sqrt(len(_WAVES)) + rng.normal(0, noise, (size, size, 3))
        frames.append(Frame(np.clip(pixels, 0, 255).astype(np.uint8), size, size))
    return frames


def shift(scores: Sequence[float], exact: Sequence[float]) -> float:
    """The largest share by which a score differs from its exact one; infinite where one is no number."""
    shares = [abs(one / other - 1) for one, other in zip(scores, exact, strict=True)]
    return max(shares, default=0.0) if all(map(math.isfinite, shares)) else math.inf
