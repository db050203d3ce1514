"""How the numbers are computed on a device.

The engine decides what is computed; a runtime takes part by implementing `Backend`. PyTorch is the reference; on a CPU
OpenVINO computes the same scores in less time (model/engine/openvino_backend.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from model.blocks import computing_in
from model.engine.serving_form import serving_form
from model.errors import BundleError
from model.images.frames import Frame, normalised
from model.manifest import Manifest, ModelBundle, state_bytes
from model.network.student import Student
from model.teachers import Teacher, load_teacher


class Features(Protocol):
    """The teacher's levels of a batch, in whatever form the backend keeps them."""


class LoadedStudent(Protocol):
    """A product's student, ready on the device. bytes: what it keeps in memory."""

    bytes: int


class Backend(Protocol):
    """Not thread-safe for `features` and `maps`: the engine calls them under its lock. `load` may run beside them."""

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        """Put a student on the device. Raises BundleError, WeightsError."""
        ...

    def features(self, manifest: Manifest, frames: Sequence[Frame]) -> Features:
        """One pass of the teacher over frames of models whose teacher_key is the manifest's."""
        ...

    def maps(self, features: Features, students: Sequence[LoadedStudent]) -> list[np.ndarray]:
        """Raw maps of each row, float32 [K, S / 4, S / 4] (Student.anomaly_maps); students[i] sees row i."""
        ...


def check_teacher(manifest: Manifest, weights_sha256: str) -> None:
    """Raises BundleError where a product was fitted to other teacher weights than those here."""
    backbone = manifest.backbone
    if weights_sha256 != backbone.weights_sha256:
        raise BundleError(
            f"{manifest.product}/{manifest.version} was fitted to {backbone.name} weights "
            f"{backbone.weights_sha256[:16]}..., here are {weights_sha256[:16]}...; "
            "install the same weights, or fit the product again"
        )


class TorchBackend:
    """PyTorch, channels_last; in float32 it is the reference that others are checked against.

    precision: of the convolutions of teacher and student. Targets, errors and maps stay in float32. On a GPU float16 is
    as fast as bfloat16 and rounds eight times more finely, which standardised targets need: they magnify what a teacher
    loses in channels that hardly vary.
    """

    def __init__(self, device: str = "auto", precision: torch.dtype = torch.float32) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._precision = precision
        self._teachers: dict[str, Teacher] = {}

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        manifest = bundle.manifest
        if manifest.quantisation is not None:
            raise BundleError(
                f"{manifest.product}/{manifest.version} computes in int8, which the backend torch does not: serve it "
                "on the CPU with engine.backend openvino, or fit the product with precision fp32"
            )
        check_teacher(manifest, self._teacher(manifest.backbone.name).weights_sha256)
        return TorchStudent(serving_form(bundle.student()).to(self.device))

    @torch.inference_mode()
    def features(self, manifest: Manifest, frames: Sequence[Frame]) -> Features:
        batch_B3SS = normalised(frames, manifest.preprocessing.mean, manifest.preprocessing.std, self.device)
        with computing_in(self._precision, self.device):
            return self._teacher(manifest.backbone.name)(batch_B3SS)

    @torch.inference_mode()
    def maps(self, features: Features, students: Sequence[LoadedStudent]) -> list[np.ndarray]:
        assert isinstance(features, list)
        rows_of: dict[LoadedStudent, list[int]] = {}
        for row, student in enumerate(students):
            rows_of.setdefault(student, []).append(row)
        maps: list[np.ndarray] = [np.empty(0)] * len(students)
        for student, rows in rows_of.items():
            assert isinstance(student, TorchStudent)
            whole = len(rows) == len(students)
            levels = features if whole else [level[torch.as_tensor(rows, device=level.device)] for level in features]
            found = student.module.anomaly_maps(levels, precision=self._precision)
            for row, map_HW in zip(rows, found.cpu().numpy(), strict=True):
                maps[row] = map_HW
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
