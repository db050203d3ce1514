"""Which runtime computes the scores here."""

from __future__ import annotations

from typing import Literal

import torch

from model.engine.backend import Backend
from model.engine.precision import GPU_PRECISIONS
from model.engine.torch_backend import TorchBackend

BackendName = Literal["auto", "torch", "openvino"]


def make_backend(name: BackendName = "auto", device: str = "auto", threads: int | None = None) -> Backend:
    """auto: on a GPU PyTorch in half precision where scores bear it, on a CPU OpenVINO where the package is there, else
    PyTorch in float32.

    device: auto, cpu, cuda or cuda:N; rehearsal is a CPU that goes a GPU's way (model/engine/device.py). threads: on
    the CPU, for OpenVINO; none takes torch's number. Raises ValueError.
    """
    if name not in ("auto", "torch", "openvino"):
        raise ValueError(f"there is no backend {name!r}; choose auto, torch or openvino")
    if device == "auto":
        device = "cuda" if name != "openvino" and torch.cuda.is_available() else "cpu"
    if name == "torch":
        return TorchBackend(device)
    if name == "auto" and device != "cpu":
        return TorchBackend(device, *GPU_PRECISIONS)
    # Only here, where it is wanted: the detector works without this package.
    from model.engine import openvino_backend, openvino_graphs

    if openvino_graphs.installed():
        if device != "cpu":
            raise ValueError(f"the backend openvino computes on the cpu, not on {device!r}; set one of the two to auto")
        return openvino_backend.OpenVINOBackend(threads)
    if name == "auto":
        return TorchBackend(device)
    raise ValueError("the backend openvino needs the package openvino: install it, or choose torch")
