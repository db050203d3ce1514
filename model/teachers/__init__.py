"""The frozen networks that a student learns to rebuild, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from model.errors import WeightsError
from model.teachers.efficientnet_lite import (
    LITE0,
    LITE0_SHAPE,
    LITE0_WEIGHTS,
    LITE1,
    LITE1_SHAPE,
    LITE1_WEIGHTS,
    LITE2,
    LITE2_SHAPE,
    LITE2_WEIGHTS,
    EfficientNetLite,
    LiteShape,
)
from model.teachers.resnet import (
    RESNET18,
    RESNET18_SHAPE,
    RESNET18_WEIGHTS,
    RESNET50,
    RESNET50_SHAPE,
    RESNET50_WEIGHTS,
    WIDE_RESNET50,
    WIDE_RESNET50_SHAPE,
    WIDE_RESNET50_WEIGHTS,
    ResNet,
    ResNetShape,
)
from model.teachers.teacher import Teacher, TeacherSpec
from model.teachers.vision_transformer import DINOV2_S, DINOV2_S_SHAPE, DINOV2_S_WEIGHTS, VisionTransformer
from model.teachers.weights import LoadedWeights, WeightsSource, load_weights

__all__ = [
    "TEACHERS",
    "RegisteredTeacher",
    "Teacher",
    "TeacherSpec",
    "load_teacher",
    "registered_teacher",
    "teacher_spec",
]


@dataclass(frozen=True)
class RegisteredTeacher:
    """What a teacher is, where its weights come from, and how it is built from them."""

    spec: TeacherSpec
    weights: WeightsSource
    build: Callable[[LoadedWeights], Teacher]


def _lite(spec: TeacherSpec, shape: LiteShape, weights: WeightsSource) -> RegisteredTeacher:
    return RegisteredTeacher(spec, weights, lambda loaded: EfficientNetLite(spec, shape, loaded))


def _resnet(spec: TeacherSpec, shape: ResNetShape, weights: WeightsSource) -> RegisteredTeacher:
    return RegisteredTeacher(spec, weights, lambda loaded: ResNet(spec, shape, loaded))


TEACHERS: dict[str, RegisteredTeacher] = {
    entry.spec.name: entry
    for entry in (
        _lite(LITE0, LITE0_SHAPE, LITE0_WEIGHTS),
        _lite(LITE1, LITE1_SHAPE, LITE1_WEIGHTS),
        _lite(LITE2, LITE2_SHAPE, LITE2_WEIGHTS),
        _resnet(RESNET18, RESNET18_SHAPE, RESNET18_WEIGHTS),
        _resnet(RESNET50, RESNET50_SHAPE, RESNET50_WEIGHTS),
        _resnet(WIDE_RESNET50, WIDE_RESNET50_SHAPE, WIDE_RESNET50_WEIGHTS),
        RegisteredTeacher(
            DINOV2_S, DINOV2_S_WEIGHTS, lambda loaded: VisionTransformer(DINOV2_S, DINOV2_S_SHAPE, loaded)
        ),
    )
}


def teacher_spec(name: str) -> TeacherSpec:
    """The declaration of a teacher, without reading its weights. Raises WeightsError for an unknown name."""
    return registered_teacher(name).spec


def load_teacher(name: str, device: torch.device | str = "cpu") -> Teacher:
    """Read a teacher's weights and put it on the device. Raises WeightsError."""
    entry = registered_teacher(name)
    return entry.build(load_weights(name, entry.weights)).to(torch.device(device))


def registered_teacher(name: str) -> RegisteredTeacher:
    """A teacher's entry. Raises WeightsError for an unknown name."""
    if name not in TEACHERS:
        raise WeightsError(f"there is no teacher {name!r}; choose one of {', '.join(TEACHERS)}")
    return TEACHERS[name]
