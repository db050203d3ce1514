"""The frozen networks that a student learns to rebuild, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from model.errors import WeightsError
from model.teachers.efficientnet_lite import LITE0, LITE0_WEIGHTS, EfficientNetLite0
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
)
from model.teachers.teacher import Teacher, TeacherSpec
from model.teachers.weights import LoadedWeights, WeightsSource, load_weights

__all__ = ["TEACHERS", "RegisteredTeacher", "Teacher", "TeacherSpec", "load_teacher", "teacher_spec"]


@dataclass(frozen=True)
class RegisteredTeacher:
    """What a teacher is, where its weights come from, and how it is built from them."""

    spec: TeacherSpec
    weights: WeightsSource
    build: Callable[[LoadedWeights], Teacher]


TEACHERS: dict[str, RegisteredTeacher] = {
    entry.spec.name: entry
    for entry in (
        RegisteredTeacher(LITE0, LITE0_WEIGHTS, EfficientNetLite0),
        RegisteredTeacher(RESNET18, RESNET18_WEIGHTS, lambda loaded: ResNet(RESNET18, RESNET18_SHAPE, loaded)),
        RegisteredTeacher(RESNET50, RESNET50_WEIGHTS, lambda loaded: ResNet(RESNET50, RESNET50_SHAPE, loaded)),
        RegisteredTeacher(
            WIDE_RESNET50,
            WIDE_RESNET50_WEIGHTS,
            lambda loaded: ResNet(WIDE_RESNET50, WIDE_RESNET50_SHAPE, loaded),
        ),
    )
}


def teacher_spec(name: str) -> TeacherSpec:
    """The declaration of a teacher, without reading its weights. Raises WeightsError for an unknown name."""
    return _registered(name).spec


def load_teacher(name: str, device: torch.device | str = "cpu") -> Teacher:
    """Read a teacher's weights and put it on the device. Raises WeightsError."""
    entry = _registered(name)
    return entry.build(load_weights(entry.weights)).to(torch.device(device))


def _registered(name: str) -> RegisteredTeacher:
    if name not in TEACHERS:
        raise WeightsError(f"there is no teacher {name!r}; choose one of {', '.join(TEACHERS)}")
    return TEACHERS[name]
