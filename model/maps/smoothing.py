"""Gaussian smoothing of one-channel maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def smooth(x_B1HW: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable gaussian of deviation sigma (cells), edges mirrored, kernel cut at 4 sigma. Square maps."""
    radius = min(math.ceil(4 * sigma), x_B1HW.shape[-1] - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=x_B1HW.device)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(x_B1HW, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.reshape(1, 1, 1, -1)), kernel.reshape(1, 1, -1, 1))
