"""The few layers that the student's parts share."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def in_channels_last(module: _Module) -> _Module:
    """Lay a module's convolution weights out as [out, H, W, in], in place: the fast order on CPUs and tensor cores."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def computing_in(precision: torch.dtype, device: torch.device) -> torch.autocast:
    """While it lasts, convolutions compute in this precision; float32 leaves all as it is."""
    plain = precision == torch.float32
    # Autocast warns of float32, even where it is not enabled.
    return torch.autocast(device.type, torch.bfloat16 if plain else precision, enabled=not plain)


def conv_norm(width_in: int, width_out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution with "same" padding and BatchNorm, no activation."""
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width_out),
    )


def conv_norm_relu(width_in: int, width_out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    return nn.Sequential(*conv_norm(width_in, width_out, kernel, stride), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, [B, C, H, W] -> the same shape (He et al., CVPR 2016, figure 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_norm_relu(width, width, 3), *conv_norm(width, width, 3))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return F.relu(x_BCHW + self.body(x_BCHW))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut (He et al., CVPR 2016, figure 5), changing scale by 2 where asked.

    scale: 1 keeps the resolution, -1 halves it (3x3 stride 2), +1 doubles it (transposed 2x2, as in RD4AD's decoder).
    """

    def __init__(self, width_in: int, width_out: int, inner: int, scale: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm_relu(width_in, inner),
            *_rescaling(inner, scale),
            nn.ReLU(inplace=True),
            *conv_norm(inner, width_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if scale != 0 or width_in != width_out:
            self.shortcut = _shortcut(width_in, width_out, scale)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x_BCHW) + self.body(x_BCHW))


def _rescaling(width: int, scale: int) -> nn.Sequential:
    if scale > 0:
        return nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2, bias=False), nn.BatchNorm2d(width))
    return conv_norm(width, width, 3, stride=2 if scale < 0 else 1)


def _shortcut(width_in: int, width_out: int, scale: int) -> nn.Sequential:
    if scale > 0:
        return nn.Sequential(
            nn.ConvTranspose2d(width_in, width_out, 2, stride=2, bias=False), nn.BatchNorm2d(width_out)
        )
    return conv_norm(width_in, width_out, 1, stride=2 if scale < 0 else 1)
