"""What a level's error is divided by at each position, and how much each level counts.

Good images decide on the first, never defects. The divisor of level l at position p is what good images lead one to
expect there:

    the level's mean error on held-out good images     makes levels comparable
    sqrt of the error's usual share at p               a place that is always hard, such as an edge, counts less

The share at a place comes from the training images, of which there are more, and which keeps the held-out scores, on
which the threshold rests, from being divided by themselves. The square root is half-way, on a log scale, between
trusting the place fully, right for parts that always lie the same, and not at all, right for textures, where the share
is close to 1 everywhere anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.maps.smoothing import smooth
from model.teachers.teacher import Recipe

_PLACE_EXPONENT = 0.5
_LEAST_SHARE = 0.1
_PLACE_SIGMA = 1.0


def level_importance(recipe: Recipe, levels: int) -> tuple[float, ...]:
    """Weights of the levels in the image's evidence, shallow to deep, summing to 1.

    Depth decides, squared: none for the shallowest level, whose error is mostly noise, then 1 to 4. They are not
    learned from good images: how well a level is rebuilt says how easy it is, not what its error tells of defects.

    Uniform under the cosine distance, as published (RD4AD).
    """
    shares = [depth**2 for depth in range(levels)] if recipe == "standardised" else [1] * levels
    return tuple(share / sum(shares) for share in shares)


def divisors(level_means: Sequence[float], places: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Per level [H_l, W_l]. level_means: mean of error / place on held-out images; places: see place_shares."""
    return [place_HW * mean for mean, place_HW in zip(level_means, places, strict=True)]


def place_shares(mean_errors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """How much of the usual error each position has, tempered: [H_l, W_l] per level, 1 where nothing is special.

    mean_errors: mean over the training images, [H_l, W_l] per level.
    """
    shares = []
    for error_HW in mean_errors:
        smoothed_HW = smooth(error_HW[None, None], _PLACE_SIGMA)[0, 0]
        share_HW = smoothed_HW / smoothed_HW.mean().clamp_min(torch.finfo(torch.float32).tiny)
        shares.append(share_HW.clamp_min(_LEAST_SHARE) ** _PLACE_EXPONENT)
    return shares
