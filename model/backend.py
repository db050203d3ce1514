"""How the numbers are computed on a device.

The engine decides what is computed; another runtime (OpenVINO, CUDA graphs) takes part by implementing `Backend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from model.errors import BundleError
from model.frames import Frame, normalised
from model.manifest import ModelBundle, Preprocessing, state_bytes
from model.serving_form import serving_form
from model.student import Student
from model.teachers import Teacher, load_teacher


class Features(Protocol):
    """The teacher's levels of a batch, in whatever form the backend keeps them."""


class LoadedStudent(Protocol):
    """A product's student, ready on the device."""

    bytes: int


class Backend(Protocol):
    """Not thread-safe for `features` and `maps`: the engine calls them under its lock. `load` may run beside them."""

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        """Put a student on the device. Raises BundleError, WeightsError."""
        ...

    def features(self, backbone: str, preprocessing: Preprocessing, frames: Sequence[Frame]) -> Features:
        """One pass of the teacher over frames of one size."""
        ...

    def maps(self, student: LoadedStudent, features: Features, rows: Sequence[int]) -> np.ndarray:
        """Raw smoothed anomaly maps of these rows of the batch, float32 [len(rows), S / 4, S / 4]."""
        ...


class TorchBackend:
    """PyTorch, float32, channels_last: the reference that others are checked against."""

    def __init__(self, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._teachers: dict[str, Teacher] = {}

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        backbone = bundle.manifest.backbone
        teacher = self._teacher(backbone.name)
        if teacher.weights_sha256 != backbone.weights_sha256:
            raise BundleError(
                f"{bundle.manifest.product}/{bundle.manifest.version} was fitted to {backbone.name} weights "
                f"{backbone.weights_sha256[:16]}..., here are {teacher.weights_sha256[:16]}...; "
                "install the same weights, or fit the product again"
            )
        return TorchStudent(serving_form(bundle.student()).to(self.device))

    @torch.inference_mode()
    def features(self, backbone: str, preprocessing: Preprocessing, frames: Sequence[Frame]) -> Features:
        batch_B3SS = normalised(frames, preprocessing.mean, preprocessing.std, self.device)
        return self._teacher(backbone)(batch_B3SS)

    @torch.inference_mode()
    def maps(self, student: LoadedStudent, features: Features, rows: Sequence[int]) -> np.ndarray:
        assert isinstance(student, TorchStudent)
        assert isinstance(features, list)
        whole = len(rows) == features[0].shape[0]
        levels = features if whole else [level[torch.as_tensor(rows, device=level.device)] for level in features]
        maps: np.ndarray = student.module.anomaly_maps(levels).cpu().numpy()
        return maps

    def _teacher(self, name: str) -> Teacher:
        if name not in self._teachers:
            self._teachers[name] = load_teacher(name, self.device)
        return self._teachers[name]


class TorchStudent:
    """A student in serving form. bytes: of its parameters and buffers."""

    def __init__(self, module: Student) -> None:
        self.module = module
        self.bytes = state_bytes(module)
