"""Distances between what the teacher sees and what the student rebuilds.

The loss and the anomaly map always compare with the targets made from the teacher's own levels, never with fused ones:
targets that can be learned let fusion and decoder agree on something empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from model.teachers.teacher import Recipe

_TINY = 1e-8


def distillation_loss(recipe: Recipe, targets: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over the batch, a scalar; both arguments are levels [B, C_l, H_l, W_l].

    "standardised": mean squared error, averaged over levels: 1 for a student that says nothing.
    "cosine": sum over levels of 1 - cosine of the whole flattened map (RD4AD's code; per position it is unstable).
    """
    pairs = list(zip(targets, rebuilt, strict=True))
    if recipe == "standardised":
        return torch.stack([F.mse_loss(b, t) for t, b in pairs]).mean()
    return torch.stack([(1 - _cosine(t, b)).mean() for t, b in pairs]).sum()


def _cosine(one_BCHW: torch.Tensor, other_BCHW: torch.Tensor) -> torch.Tensor:
    """Of whole flattened maps, [B]: three sums in memory's order, where cosine_similarity would divide both maps."""
    one, other = (x_BCHW.permute(0, 2, 3, 1).flatten(1) for x_BCHW in (one_BCHW, other_BCHW))
    norms = (one.square().sum(dim=1) * other.square().sum(dim=1)).sqrt()
    return (one * other).sum(dim=1) / norms.clamp_min(_TINY)


def error_maps(recipe: Recipe, targets: Sequence[torch.Tensor], rebuilt: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Per level, the distance at each position, [B, H_l, W_l]: mean squared error, or 1 - cosine."""
    pairs = zip(targets, rebuilt, strict=True)
    if recipe == "standardised":
        return [(t - b).square().mean(dim=1) for t, b in pairs]
    # Spelled out: OpenVINO's frontend has no rule for cosine_similarity.
    return [1 - (F.normalize(t, dim=1) * F.normalize(b, dim=1)).sum(dim=1) for t, b in pairs]
