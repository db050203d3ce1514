"""The trainable part of a product's model: fusion, one-class embedding, decoder, and the calibration of its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from model.blocks import computing_in, in_channels_last
from model.evidence.statistics import PlaceStatistics
from model.maps.anomaly_map import SMOOTHING_FRACTION, anomaly_maps
from model.maps.smoothing import smooth
from model.network.decoder import ReverseDecoder
from model.network.embedding import OneClassEmbedding
from model.network.fusion import AsymptoticFusion, FusionShape, reduced_widths
from model.network.losses import distillation_loss, error_maps
from model.network.targets import Targets
from model.teachers import TeacherSpec

_TINY = 1e-12
Method = Literal[
    "fusion", "plain", "wide", "semantics_only", "mean_weights", "scalar_weights", "reversed", "residual",
    "fused_targets", "straight", "no_dropout",
]  # fmt: skip
"""The default, and the rows of its ablation: reverse distillation without fusion; the same with as many parameters as
fusion has; all levels fused at once; levels weighted by 1/n, or by one number each; semantics before geometry; fused
maps added to what they were fused from; fused maps, detached, as what is rebuilt; the deepest fused map alone into the
embedding; fused maps joined for every image of a training step."""

_FUSIONS: dict[Method, FusionShape] = {
    "fusion": FusionShape(),
    "semantics_only": FusionShape(first=None),
    "mean_weights": FusionShape(weights="mean"),
    "scalar_weights": FusionShape(weights="scalar"),
    "reversed": FusionShape(first=(1, 2)),
    "residual": FusionShape(residual=True),
    "fused_targets": FusionShape(),
    "straight": FusionShape(),
    "no_dropout": FusionShape(dropout=0.0),
}


Statistics = Literal["places", "pooled"]


@dataclass(frozen=True)
class StudentShape:
    """Channels and depths of a student. stage_widths: the decoder's, shallow to deep."""

    embedding_width: int
    embedding_inner: int
    stage_widths: tuple[int, int, int]
    blocks: int


def student_shape(spec: TeacherSpec) -> StudentShape:
    """Small for the Lite teachers, half as wide as published (RD4AD) for the ResNets: the teacher costs the most."""
    if spec.recipe == "standardised":
        return StudentShape(embedding_width=192, embedding_inner=96, stage_widths=(64, 112, 192), blocks=2)
    shallow, middle, deep = (width // 2 for width in spec.widths)
    return StudentShape(
        embedding_width=2 * deep, embedding_inner=deep // 2, stage_widths=(shallow, middle, deep), blocks=3
    )


def wide_shape(spec: TeacherSpec) -> StudentShape:
    """A plain student's, its embedding widened until it has as many parameters as the student with fusion."""
    shape = student_shape(spec)
    with torch.device("meta"):
        wanted = _parameters(Student(spec, "fusion"))
        inner = shape.embedding_inner
        while True:
            embedding = OneClassEmbedding(spec.widths, shape.stage_widths, shape.embedding_width, inner, shape.blocks)
            plain = Student(spec, "plain")
            if _parameters(plain) - _parameters(plain.embedding) + _parameters(embedding) >= wanted:
                return replace(shape, embedding_inner=inner)
            inner += 8


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Student(nn.Module):
    """Rebuilds the teacher's levels through a bottleneck; where it fails, the part is not like the good ones."""

    def __init__(
        self, spec: TeacherSpec, method: Method = "fusion", size: int = 256, *, statistics: Statistics | None = None
    ) -> None:
        """size: side of the images in pixels, a multiple of the deepest stride.

        statistics: what is known of good features, "pooled" where images are tiles; None: a student alone.
        """
        super().__init__()
        self.size = size
        shape = student_shape(spec) if method != "wide" else wide_shape(spec)
        self.recipe = spec.recipe
        self.targets = Targets(spec, more=statistics is not None)
        self.statistics = PlaceStatistics(spec, size, tiled=statistics == "pooled") if statistics else None
        fusion = _FUSIONS.get(method)
        fused_widths = reduced_widths(spec.widths)
        self.fusion = AsymptoticFusion(spec.widths, spec.strides, fusion) if fusion else None
        self.straight = method == "straight"
        self.embedding = OneClassEmbedding(
            fused_widths[-1:] if self.straight else spec.widths,
            shape.stage_widths,
            shape.embedding_width,
            shape.embedding_inner,
            shape.blocks,
        )
        self.fused_targets = nn.ModuleList(
            nn.BatchNorm2d(width, affine=False) if self.targets.standardised else nn.Identity()
            for width in (fused_widths if method == "fused_targets" else ())
        )
        self.decoder = ReverseDecoder(
            fused_widths if method == "fused_targets" else spec.widths,
            shape.embedding_width,
            shape.stage_widths,
            shape.blocks,
            rectified=spec.recipe == "cosine",
            lateral_widths=fused_widths if fusion else (),
        )
        self.register_buffer("importance", torch.full((len(spec.widths),), 1 / len(spec.widths)))
        for level, stride in enumerate(spec.strides):
            self.register_buffer(f"divisor_{level}", torch.ones(size // stride, size // stride))
        in_channels_last(self)

    def forward(self, targets: Sequence[torch.Tensor], joined_B: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Targets [B, C_l, H_l, W_l] -> the same levels, rebuilt.

        joined_B: for which images the fused maps join the decoder, 1 or 0; none: for all, as in scoring.
        """
        fused: Sequence[torch.Tensor] = () if self.fusion is None else self.fusion(targets)
        embedded_BCHW = self.embedding(fused[-1:] if self.straight else targets)
        if joined_B is not None:
            fused = [fused_BCHW * joined_B[:, None, None, None] for fused_BCHW in fused]
        sides = [target.shape[-1] for target in targets]
        rebuilt: list[torch.Tensor] = self.decoder(embedded_BCHW, sides, fused)
        return rebuilt

    def wanted(self, targets: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What `forward` should rebuild: the targets themselves, but for the ablation's fused ones."""
        if not self.fused_targets:
            return list(targets)
        assert self.fusion is not None
        with torch.no_grad():  # or fusion and decoder would agree on something empty
            return [norm(fused) for norm, fused in zip(self.fused_targets, self.fusion(targets), strict=True)]

    def loss(
        self,
        good: Sequence[torch.Tensor],
        spoiled: Sequence[torch.Tensor] | None = None,
        joined_B: torch.Tensor | None = None,
        *,
        precision: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Distance between the good images' levels and what is rebuilt from the spoiled ones', a scalar.

        good, spoiled: the teacher's raw levels of the same images (model/fitting/corruption.py), or none.
        joined_B: see forward. precision: of the convolutions; targets and the distance to them stay in float32.
        """
        targets = self.targets(good)
        seen = targets if spoiled is None else self.targets(spoiled)
        with computing_in(precision, targets[0].device):
            rebuilt = self(seen, joined_B)
        return distillation_loss(self.recipe, self.wanted(targets), [level.float() for level in rebuilt])

    def level_errors(
        self, teacher_levels: Sequence[torch.Tensor], *, precision: torch.dtype = torch.float32
    ) -> list[torch.Tensor]:
        """Distance at each position of each level, float32 [B, H_l, W_l]. precision: see loss."""
        return self._errors(self.targets(teacher_levels), precision)

    def _errors(self, targets: Sequence[torch.Tensor], precision: torch.dtype) -> list[torch.Tensor]:
        with computing_in(precision, targets[0].device):
            rebuilt = self(targets)
        return error_maps(self.recipe, self.wanted(targets), [level.float() for level in rebuilt])

    @property
    def divisors(self) -> list[torch.Tensor]:
        """What good images lead one to expect of each level's error, [H_l, W_l] (model/maps/spread.py); buffers."""
        return [self.get_buffer(f"divisor_{level}") for level in range(self.targets.levels)]

    def anomaly_maps(
        self, teacher_levels: Sequence[torch.Tensor], *, precision: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Smoothed maps [B, K, S / 4, S / 4]: the map alone, or with statistics the map, fine and deep.

        precision: see loss. The map is the geometric mean of the student's and the sharp one: a place counts where both
        are surprised.
        """
        targets = self.targets.all(teacher_levels)
        maps_BHW = self._own_maps(targets[: self.targets.levels], precision)
        return with_statistics(maps_BHW, self.statistics(targets) if self.statistics else None)

    def own_maps(self, teacher_levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of its errors alone, smoothed, [B, S / 4, S / 4]."""
        return self._own_maps(self.targets(teacher_levels), torch.float32)

    def _own_maps(self, targets: Sequence[torch.Tensor], precision: torch.dtype) -> torch.Tensor:
        errors = self._errors(targets, precision)
        return anomaly_maps(errors, self.divisors, self.get_buffer("importance"), self.size)


def with_statistics(maps_BHW: torch.Tensor, found_B3HW: torch.Tensor | None) -> torch.Tensor:
    """A student's maps, and the statistics' fine, deep and sharp ones -> all that is said of the images, see
    anomaly_maps."""
    if found_B3HW is None:
        return maps_BHW[:, None]
    sharp_B1HW = smooth(found_B3HW[:, 2:], sigma=SMOOTHING_FRACTION * maps_BHW.shape[-1])
    map_B1HW = (maps_BHW[:, None] * sharp_B1HW.clamp_min(_TINY)).sqrt()
    return torch.cat([map_B1HW, found_B3HW[:, :2]], dim=1)
