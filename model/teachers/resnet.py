"""ResNet-18, ResNet-50 and Wide ResNet-50-2 (He et al., CVPR 2016; Zagoruyko and Komodakis, BMVC 2016), layers 1 to 3.

The teachers of the published reverse-distillation results. Layer 4 is not built. Weights are torchvision's published
files (IMAGENET1K_V1). BatchNorm is folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.blocks import in_channels_last
from model.errors import WeightsError
from model.teachers.teacher import TeacherSpec, batch_norm_affine, folded
from model.teachers.weights import LoadedWeights, WeightsSource, take

_BATCH_NORM_EPS = 1e-5
_STRIDES = (4, 8, 16)


@dataclass(frozen=True)
class ResNetShape:
    """Blocks per layer, the inner width of a layer-1 block, and the output's expansion of the plain width (64, ...)."""

    blocks: tuple[int, int, int]
    bottleneck: bool
    inner_width: int

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1


RESNET18_SHAPE = ResNetShape((2, 2, 2), bottleneck=False, inner_width=64)
RESNET50_SHAPE = ResNetShape((3, 4, 6), bottleneck=True, inner_width=64)
WIDE_RESNET50_SHAPE = ResNetShape((3, 4, 6), bottleneck=True, inner_width=128)

RESNET18 = TeacherSpec("resnet18", widths=(64, 128, 256), strides=_STRIDES, recipe="cosine", int8=True)
RESNET50 = TeacherSpec("resnet50", widths=(256, 512, 1024), strides=_STRIDES, recipe="cosine", int8=True)
WIDE_RESNET50 = TeacherSpec("wide_resnet50_2", widths=(256, 512, 1024), strides=_STRIDES, recipe="cosine", int8=True)

_PUBLISHED = "https://download.pytorch.org/models/"


def _published(file_name: str, sha256: str) -> WeightsSource:
    return WeightsSource(file_name, sha256, url=_PUBLISHED + file_name)


RESNET18_WEIGHTS = _published(
    "resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
)
RESNET50_WEIGHTS = _published(
    "resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"
)
WIDE_RESNET50_WEIGHTS = _published(
    "wide_resnet50_2-95faca4d.pth", "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8"
)


class ResNet(nn.Module):
    """Images [B, 3, S, S] -> layers 1 to 3 at strides 4, 8 and 16."""

    def __init__(self, spec: TeacherSpec, shape: ResNetShape, weights: LoadedWeights) -> None:
        super().__init__()
        self.spec = spec
        self.weights_sha256 = weights.sha256
        self.stem = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        _load(self.stem, weights.tensors, "conv1", "bn1")
        layers: list[nn.Module] = []
        width = 64
        for level, count in enumerate(shape.blocks):
            inner, out = shape.inner_width << level, (64 << level) * shape.expansion
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = 2 if index == 0 and level > 0 else 1
                block = _Residual(width, inner, out, stride, shape.bottleneck)
                block.load(weights.tensors, f"layer{level + 1}.{index}")
                blocks.append(block)
                width = out
            if f"layer{level + 1}.{count}.conv1.weight" in weights.tensors:  # ResNet-34 begins like ResNet-18
                raise WeightsError(
                    f"the weights have more than {count} blocks in layer {level + 1}; "
                    "they belong to another architecture"
                )
            layers.append(nn.Sequential(*blocks))
        self.layers = nn.ModuleList(layers)
        self.requires_grad_(False)
        self.eval()
        in_channels_last(self)

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        x_BCHW = F.max_pool2d(F.relu(self.stem(images_BCHW)), 3, stride=2, padding=1)
        levels = []
        for layer in self.layers:
            x_BCHW = layer(x_BCHW)
            levels.append(x_BCHW)
        return levels


class _Residual(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 (which carries the stride), 1x1; ReLU after the sum."""

    def __init__(self, width_in: int, inner: int, width_out: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            convs = [
                nn.Conv2d(width_in, inner, 1),
                nn.Conv2d(inner, inner, 3, stride=stride, padding=1),
                nn.Conv2d(inner, width_out, 1),
            ]
        else:
            convs = [
                nn.Conv2d(width_in, inner, 3, stride=stride, padding=1),
                nn.Conv2d(inner, width_out, 3, padding=1),
            ]
        self.convs = nn.ModuleList(convs)
        reshapes = stride != 1 or width_in != width_out
        self.shortcut = nn.Conv2d(width_in, width_out, 1, stride=stride) if reshapes else None

    def load(self, tensors: Mapping[str, torch.Tensor], name: str) -> None:
        for index, conv in enumerate(self.convs, start=1):
            assert isinstance(conv, nn.Conv2d)
            _load(conv, tensors, f"{name}.conv{index}", f"{name}.bn{index}")
        if self.shortcut is not None:
            _load(self.shortcut, tensors, f"{name}.downsample.0", f"{name}.downsample.1")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y_BCHW = x_BCHW
        for conv in self.convs[:-1]:
            y_BCHW = F.relu(conv(y_BCHW))
        y_BCHW = self.convs[-1](y_BCHW)
        return F.relu(y_BCHW + (x_BCHW if self.shortcut is None else self.shortcut(x_BCHW)))


def _load(conv: nn.Conv2d, tensors: Mapping[str, torch.Tensor], conv_name: str, norm_name: str) -> None:
    width = (conv.out_channels,)
    weight = take(tensors, f"{conv_name}.weight", tuple(conv.weight.shape))
    gamma, beta, mean, var = (
        take(tensors, f"{norm_name}.{part}", width) for part in ("weight", "bias", "running_mean", "running_var")
    )
    folded(conv, weight, *batch_norm_affine(gamma, beta, mean, var, _BATCH_NORM_EPS))
