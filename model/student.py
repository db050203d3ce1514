"""The trainable part of a product's model: fusion, one-class embedding, decoder, and the calibration of its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from model.anomaly_map import anomaly_maps
from model.blocks import in_channels_last
from model.decoder import ReverseDecoder
from model.embedding import OneClassEmbedding
from model.fusion import AsymptoticFusion
from model.losses import distillation_loss, error_maps
from model.targets import Targets
from model.teachers import TeacherSpec

Method = Literal["fusion", "plain"]


@dataclass(frozen=True)
class StudentShape:
    """Channels and depths of a student. stage_widths: the decoder's, shallow to deep."""

    embedding_width: int
    embedding_inner: int
    stage_widths: tuple[int, int, int]
    blocks: int


def student_shape(spec: TeacherSpec) -> StudentShape:
    """Small for the Lite teachers, the published sizes for the ResNets (embedding twice as wide as layer 3)."""
    if spec.recipe == "standardised":
        return StudentShape(embedding_width=192, embedding_inner=96, stage_widths=(64, 112, 192), blocks=2)
    deepest = spec.widths[-1]
    return StudentShape(embedding_width=2 * deepest, embedding_inner=deepest // 2, stage_widths=spec.widths, blocks=3)


class Student(nn.Module):
    """Rebuilds the teacher's levels through a bottleneck; where it fails, the part is not like the good ones."""

    def __init__(self, spec: TeacherSpec, method: Method = "fusion", size: int = 256) -> None:
        """size: side of the images in pixels, a multiple of twice the deepest stride."""
        super().__init__()
        self.size = size
        shape = student_shape(spec)
        self.recipe = spec.recipe
        self.targets = Targets(spec)
        self.fusion = AsymptoticFusion(spec.widths, spec.strides) if method == "fusion" else None
        self.embedding = OneClassEmbedding(spec.widths, shape.embedding_width, shape.embedding_inner, shape.blocks)
        self.decoder = ReverseDecoder(
            spec.widths, shape.embedding_width, shape.stage_widths, shape.blocks, rectified=spec.recipe == "cosine"
        )
        for level, stride in enumerate(spec.strides):
            self.register_buffer(f"divisor_{level}", torch.ones(size // stride, size // stride))
        in_channels_last(self)

    def forward(self, targets: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Targets [B, C_l, H_l, W_l] -> the same levels, rebuilt."""
        levels = targets if self.fusion is None else self.fusion(targets)
        rebuilt: list[torch.Tensor] = self.decoder(self.embedding(levels))
        return rebuilt

    def loss(self, teacher_levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Distillation loss on the teacher's raw levels, a scalar."""
        targets = self.targets(teacher_levels)
        return distillation_loss(self.recipe, targets, self(targets))

    def level_errors(self, teacher_levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Distance at each position of each level, [B, H_l, W_l]."""
        targets = self.targets(teacher_levels)
        return error_maps(self.recipe, targets, self(targets))

    @property
    def divisors(self) -> list[torch.Tensor]:
        """What each level's error is divided by in the map, [H_l, W_l] (see model/spread.py). They are buffers."""
        return [self.get_buffer(f"divisor_{level}") for level in range(self.targets.levels)]

    def anomaly_maps(self, teacher_levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Smoothed maps [B, S / 4, S / 4]."""
        return anomaly_maps(self.level_errors(teacher_levels), self.divisors, self.size)
