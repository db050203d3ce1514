"""From level errors to one anomaly map, and from the map to the image score.

The map lives at a quarter of the model's input resolution. Each level's error is divided by what good images lead one
to expect (model/maps/spread.py), brought to that resolution and smoothed. Then two questions are answered apart:

    how strong?   evidence: the mean of the levels, weighted by depth (model/maps/spread.py). Deep levels carry it.
    where?        the geometric mean of the levels: a place counts where all of them are surprised, shallow ones, which
                  are noisy but sharp, included. The middle one, neither sharp nor deep, counts half.

The map is the second, raised to a power that steepens its peaks, and scaled so that its maximum is that of the first.
So the image score is the maximum of the map, nothing else: a mask cut from the map and the verdict cannot disagree.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from model.images.frames import MAP_STRIDE
from model.maps.smoothing import smooth

SMOOTHING_FRACTION = 4 / 256
"""Deviation of the gaussian as a fraction of the image's side: RD4AD's sigma of 4 pixels at 256."""
WHERE_WEIGHTS = (0.4, 0.2, 0.4)
"""Exponents of the levels in the geometric mean, shallow to deep."""
PEAK_POWER = 1.2
"""Sharpens what level upsampling and smoothing have blurred: regions overlap better with defects drawn by hand."""
_TINY = 1e-12


def anomaly_maps(
    errors: Sequence[torch.Tensor], divisors: Sequence[torch.Tensor], importance: torch.Tensor, size: int
) -> torch.Tensor:
    """Level errors [B, H_l, W_l], their divisors [H_l, W_l] and weights [L] -> maps [B, S / 4, S / 4], float32."""
    levels_BLHW = level_maps(errors, divisors, size)
    evidence_BHW = (levels_BLHW * importance.to(levels_BLHW.device).reshape(1, -1, 1, 1)).sum(dim=1)
    exponents_L11 = PEAK_POWER * _where_weights(levels_BLHW.device).reshape(-1, 1, 1)
    where_BHW = (levels_BLHW.clamp_min(_TINY).log() * exponents_L11).sum(dim=1).exp()
    strength_B = image_scores(evidence_BHW) / image_scores(where_BHW)
    return where_BHW * strength_B[:, None, None]


@functools.cache
@torch.inference_mode(False)
def _where_weights(device: torch.device) -> torch.Tensor:
    """Once per device: a GPU would be waited for at each copy."""
    return torch.tensor(WHERE_WEIGHTS, device=device)


def level_maps(errors: Sequence[torch.Tensor], divisors: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Each level alone, in multiples of what is expected: [B, L, S / 4, S / 4], smoothed, float32."""
    side = size // MAP_STRIDE
    maps = []
    for error_BHW, divisor_HW in zip(errors, divisors, strict=True):
        expected_B1HW = (error_BHW.float() / divisor_HW)[:, None]
        upsampled_B1HW = F.interpolate(expected_B1HW, size=(side, side), mode="bilinear", align_corners=False)
        maps.append(smooth(upsampled_B1HW, sigma=SMOOTHING_FRACTION * side))
    return torch.cat(maps, dim=1)


def image_scores(maps_BHW: torch.Tensor) -> torch.Tensor:
    """Maximum of each map, [B]."""
    return maps_BHW.flatten(1).amax(dim=1)
