"""The form in which a student scores: BatchNorm folded into the convolutions before it, frozen, in eval mode.

Transposed convolutions of kernel and stride 2 become 1x1 convolutions with four times the channels and a shuffle of
these into pixels, which computes the same: runtimes have no int8 kernel for a transposed one over signed values.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.blocks import in_channels_last
from model.network.student import Student


def serving_form(student: Student) -> Student:
    """A copy to score with; the given student stays as it is and can be trained on."""
    served: Student = copy.deepcopy(student).eval().requires_grad_(False)
    with torch.no_grad():
        for module in list(served.modules()):
            if isinstance(module, nn.Sequential):
                _fold(module)
                _shuffle(module)
    return in_channels_last(served)


def _fold(sequence: nn.Sequential) -> None:
    for place in range(len(sequence) - 1):
        conv, norm = sequence[place], sequence[place + 1]
        if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
            sequence[place] = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            sequence[place + 1] = nn.Identity()


def _shuffle(sequence: nn.Sequential) -> None:
    for place, layer in enumerate(sequence):
        if isinstance(layer, nn.ConvTranspose2d):
            assert layer.kernel_size == layer.stride == (2, 2)
            sequence[place] = _shuffled(layer)


def _shuffled(transposed: nn.ConvTranspose2d) -> nn.Sequential:
    weight_IO22 = transposed.weight
    inputs, outputs = weight_IO22.shape[:2]
    # Not initialised: that would draw from the caller's random numbers.
    conv = skip_init(nn.Conv2d, inputs, 4 * outputs, 1, bias=transposed.bias is not None, device=weight_IO22.device)
    conv.weight.copy_(weight_IO22.permute(1, 2, 3, 0).reshape(4 * outputs, inputs, 1, 1))
    if conv.bias is not None and transposed.bias is not None:
        conv.bias.copy_(transposed.bias.repeat_interleave(4))
    return nn.Sequential(conv, nn.PixelShuffle(2)).requires_grad_(False).eval()
