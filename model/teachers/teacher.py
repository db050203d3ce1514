"""What a teacher is: a frozen network, read at three levels from geometry to semantics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from model.images.frames import IMAGENET_MEAN, IMAGENET_STD

Recipe = Literal["standardised", "cosine"]


@dataclass(frozen=True)
class TeacherSpec:
    """What the rest of the detector must know about a teacher.

    widths: channels of the three levels that a student rebuilds; strides: image pixels per position of each level.
    more_widths, more_strides: of levels that follow these and that statistics alone read.
    fine, deep, sharp: which of all levels each gaussian of the statistics joins (model/evidence/statistics.py).
    recipe: "standardised" = unit-length, standardised targets under squared error (taps that are linear and signed);
    "cosine" = raw targets under the whole-map cosine distance of RD4AD (taps behind a ReLU).
    int8: whether an int8 version quantises the teacher too. Not where bottlenecks are linear and depthwise: Lite0's
    levels would move by 9 to 18%, which took 3 points of image AUROC from one product.
    """

    name: str
    widths: tuple[int, int, int]
    strides: tuple[int, int, int]
    recipe: Recipe
    int8: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    more_widths: tuple[int, ...] = ()
    more_strides: tuple[int, ...] = ()
    fine: tuple[int, ...] = (0, 1)
    deep: tuple[int, ...] = (1, 2)
    sharp: tuple[int, ...] = (0, 1)

    @property
    def all_widths(self) -> tuple[int, ...]:
        """Channels of everything that the teacher returns."""
        return (*self.widths, *self.more_widths)

    @property
    def all_strides(self) -> tuple[int, ...]:
        """Image pixels per position of everything that the teacher returns."""
        return (*self.strides, *self.more_strides)


class Teacher(Protocol):
    """A frozen network in eval mode. Its weights_sha256 names the exact file that it was read from."""

    spec: TeacherSpec
    weights_sha256: str

    def __call__(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Normalised images [B, 3, S, S] -> all levels, [B, C_l, S / stride_l, S / stride_l] of each."""
        ...

    def to(self, device: torch.device) -> Teacher:
        """Move to a device, in place; returns itself."""
        ...


def folded(conv: nn.Conv2d, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """Write a convolution's weight with its BatchNorm (y = scale * conv(x) + shift) folded in."""
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(weight * scale.reshape(-1, 1, 1, 1))
        conv.bias.copy_(shift)


def batch_norm_affine(
    gamma: torch.Tensor, beta: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A frozen BatchNorm as (scale, shift), each [C]."""
    scale = gamma / torch.sqrt(var + eps)
    return scale, beta - mean * scale
