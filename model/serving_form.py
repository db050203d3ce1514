"""The form in which a student scores: BatchNorm folded into the convolutions before it, frozen, in eval mode."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.blocks import in_channels_last
from model.student import Student


def serving_form(student: Student) -> Student:
    """A copy to score with; the given student stays as it is and can be trained on."""
    served: Student = copy.deepcopy(student).eval().requires_grad_(False)
    with torch.no_grad():
        for module in list(served.modules()):
            if isinstance(module, nn.Sequential):
                _fold(module)
    return in_channels_last(served)


def _fold(sequence: nn.Sequential) -> None:
    for place in range(len(sequence) - 1):
        conv, norm = sequence[place], sequence[place + 1]
        if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
            sequence[place] = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            sequence[place + 1] = nn.Identity()
