"""How the numbers are computed on a device.

The engine decides what is computed; a runtime takes part by implementing `Backend`. PyTorch is the reference
(model/engine/torch_backend.py); on a CPU OpenVINO computes the same scores in less time
(model/engine/openvino_backend.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from model.errors import BundleError
from model.images.frames import Frame
from model.manifest import Manifest, ModelBundle

MapsToCome = Callable[[], list[np.ndarray]]
"""Waits for the device, then gives the raw maps of each row, float32 [K, S / 4, S / 4] (Student.anomaly_maps)."""


class LoadedStudent(Protocol):
    """A product's student, ready on the device. bytes: what it keeps in memory."""

    bytes: int


class Backend(Protocol):
    """Not thread-safe for `begin`: the engine calls it under its lock. `load` and what is to come may run beside it."""

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        """Put a student on the device. Raises BundleError, WeightsError."""
        ...

    def begin(self, manifest: Manifest, frames: Sequence[Frame], students: Sequence[LoadedStudent]) -> MapsToCome:
        """One pass of the teacher over frames of models whose teacher_key is the manifest's, then of each student.

        students[i] sees frames[i]; equal ones lie side by side.
        """
        ...

    def batches(self, most: int) -> Sequence[int]:
        """Sizes of batches that each need a first time, up to the most."""
        ...

    def describe(self) -> dict[str, object]:
        """What computes, and what was made ready for it."""
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
