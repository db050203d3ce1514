"""A fit in the middle, as safetensors: student, optimiser, and the facts that say which fit it was.

Tensors are named student.<name> and optimiser.<parameter index>.<name>; the facts are JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from model.errors import FitError

Facts = dict[str, str | int | float]

_FACTS = "linewatch.fit"
_HEADER_LENGTH_BYTES = 8


def save_checkpoint(module: nn.Module, optimiser: torch.optim.Optimizer, identity: Facts, progress: Facts) -> bytes:
    """identity: what the fit is; progress: how far it is. Both come back from restore_checkpoint."""
    tensors = {f"student.{name}": tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        for name, tensor in values.items():
            tensors[f"optimiser.{index}.{name}"] = tensor.detach().cpu().contiguous()
    data: bytes = save_tensors(tensors, metadata={_FACTS: json.dumps({"identity": identity, "progress": progress})})
    return data


def restore_checkpoint(data: bytes, module: nn.Module, optimiser: torch.optim.Optimizer, identity: Facts) -> Facts:
    """Load into module and optimiser, and return the progress. Raises FitError, and then changes nothing."""
    try:
        tensors = load_tensors(data)
        facts = _facts(data)
        found, progress = facts["identity"], facts["progress"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FitError(f"the checkpoint cannot be read: {error}; start the fit from the beginning") from error
    differing = sorted(name for name in {*found, *identity} if found.get(name) != identity.get(name))
    if differing:
        raise FitError(
            f"the checkpoint is of another fit: {', '.join(differing)} differ; "
            "start from the beginning, or give the same product, images and options"
        )
    student = {name.removeprefix("student."): t for name, t in tensors.items() if name.startswith("student.")}
    try:
        module.load_state_dict(student)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": _optimiser_state(tensors)})
        _lay_out_as_parameters(optimiser)
    except (RuntimeError, ValueError) as error:
        raise FitError(f"the checkpoint does not fit this student: {error}; start from the beginning") from error
    restored: Facts = progress
    return restored


def _facts(data: bytes) -> dict[str, Facts]:
    """The metadata of a safetensors file in memory: a little-endian length, then a JSON header."""
    length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
    facts: dict[str, Facts] = json.loads(header["__metadata__"][_FACTS])
    return facts


def _optimiser_state(tensors: Mapping[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    return state


def _lay_out_as_parameters(optimiser: torch.optim.Optimizer) -> None:
    """A fused optimiser walks parameter, gradient and moments in memory's order: channels_last must stay so."""
    for parameter, values in optimiser.state.items():
        for name, tensor in values.items():
            if tensor.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
