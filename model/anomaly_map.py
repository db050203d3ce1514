"""From level errors to one anomaly map, and from the map to the image score.

The map lives at a quarter of the model's input resolution. Each level's error is divided by what good images lead one
to expect (model/spread.py), brought to that resolution, summed and smoothed. The image score is the maximum of the
smoothed map, nothing else: a mask cut from the map and the verdict cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from model.smoothing import smooth

MAP_STRIDE = 4
SMOOTHING_FRACTION = 4 / 256
"""Deviation of the gaussian as a fraction of the image's side: RD4AD's sigma of 4 pixels at 256."""


def anomaly_maps(errors: Sequence[torch.Tensor], divisors: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Level errors [B, H_l, W_l] and their divisors [H_l, W_l] -> smoothed maps [B, S / 4, S / 4], float32."""
    side = size // MAP_STRIDE
    total_B1HW = torch.zeros((errors[0].shape[0], 1, side, side), device=errors[0].device)
    for error_BHW, divisor_HW in zip(errors, divisors, strict=True):
        expected_B1HW = (error_BHW.float() / divisor_HW)[:, None]
        total_B1HW += F.interpolate(expected_B1HW, size=(side, side), mode="bilinear", align_corners=False)
    return smooth(total_B1HW, sigma=SMOOTHING_FRACTION * side)[:, 0]


def image_scores(maps_BHW: torch.Tensor) -> torch.Tensor:
    """Maximum of each smoothed map, [B]."""
    return maps_BHW.flatten(1).amax(dim=1)
