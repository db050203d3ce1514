"""What a training step sees, and at which rate it learns: pure functions of the seed and the step.

So a fit that was stopped and restored ends at the same bits as one that was not.
"""

from __future__ import annotations

import math

import numpy as np

from model.fitting.options import DEFAULT_LEARNING_RATES, FitOptions
from model.teachers.teacher import Recipe
from model.team import ALONE, Team

_WARM_UP_STEPS = 20


def batch_indexes(options: FitOptions, images: int, step: int, team: Team = ALONE) -> list[int]:
    """Which training images make up a step: consecutive places of an endless row of seeded permutations.

    Of a team each has as many of a step's images, from its own ones.
    """
    batch = options.batch // team.size
    places = range(step * batch, (step + 1) * batch)
    epochs = {place // images for place in places}
    orders = {epoch: np.random.default_rng((options.seed, epoch, *team.salt)).permutation(images) for epoch in epochs}
    return [int(orders[place // images][place % images]) for place in places]


def copy_indexes(options: FitOptions, step: int, team: Team = ALONE) -> list[int]:
    """Which spoiled copy of each image a step shows."""
    draws = np.random.default_rng((options.seed, step, *team.salt))
    return [int(copy) for copy in draws.integers(options.corruptions, size=options.batch // team.size)]


def joined_images(options: FitOptions, dropout: float, step: int, team: Team = ALONE) -> list[float]:
    """For which images of a step the fused maps join the decoder: 1 or 0 (model/network/fusion.py)."""
    draws = np.random.default_rng((options.seed, step, 1, *team.salt)).random(options.batch // team.size)
    return [float(draw >= dropout) for draw in draws]


def learning_rate(options: FitOptions, recipe: Recipe, step: int) -> float:
    """Constant for the published recipe; for the other a warm-up, then half a cosine down to zero."""
    peak = options.learning_rate or DEFAULT_LEARNING_RATES[recipe]
    if recipe == "cosine":
        return peak
    warm_up = min(1.0, (step + 1) / _WARM_UP_STEPS)
    return peak * warm_up * 0.5 * (1 + math.cos(math.pi * step / options.steps))
