"""Batches of any size, computed in few sizes, and students of one shape, computed by one recording.

A recording (a CUDA graph) is of one size of batch and of tensors that stay where they are. So batches are brought to
the next power of two: ten recordings reach to 512 images, and none is made later. A student's tensors lie in one block
of memory. A recording reads a block of its own, the mould's, and a product's is copied into it, which takes a few
microseconds for ten megabytes: a hundred products need no more recordings than one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from model.engine.device import Device

_ALIGNED = 256
"""Bytes: tensors begin at multiples of it, as the kernels like best."""

Tensors = list[torch.Tensor]
M = TypeVar("M", bound=nn.Module)


def bucket(rows: int) -> int:
    """The size in which a batch of so many rows is computed: the next power of two."""
    return 1 << (rows - 1).bit_length()


def buckets(most: int) -> list[int]:
    """All of them for batches of up to so many rows, the largest first: its scratch memory suffices for the others."""
    return [1 << power for power in reversed(range(bucket(most).bit_length()))]


class Bucketed:
    """A function of tensors [B, ...] whose rows don't see one another. Where the device replays nothing, itself."""

    def __init__(self, device: Device, function: Callable[[Sequence[torch.Tensor]], Tensors]) -> None:
        self._device, self._function = device, function
        self._recorded: dict[int, tuple[Tensors, Callable[[], Tensors]]] = {}

    def once(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        """Computed as it is; nothing is recorded."""
        return self._function(inputs)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        """Overwritten by the next call for a batch of about that size."""
        if not self._device.replays:
            return self._function(inputs)
        rows = len(inputs[0])
        size = bucket(rows)
        if size not in self._recorded:
            given = [_room(size, tensor) for tensor in inputs]
            self._recorded[size] = given, self._device.recording(lambda: self._function(given))
        given, replay = self._recorded[size]
        for place, tensor in zip(given, inputs, strict=True):
            place[:rows].copy_(tensor, non_blocking=True)
        return [found[:rows] for found in replay()]


def _room(rows: int, like: torch.Tensor) -> torch.Tensor:
    """Zeros of as many rows, laid out as the tensor is."""
    last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return torch.zeros((rows, *like.shape[1:]), dtype=like.dtype, device=like.device).contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )


class Mould(Generic[M]):
    """A module that takes on the tensors of any other of its shape."""

    def __init__(self, like: M) -> None:
        with torch.inference_mode(False):
            self.module = copy.deepcopy(like)
        self._block = in_one_block(self.module)
        self._holds: torch.Tensor | None = None

    def take_on(self, block: torch.Tensor) -> None:
        """block: of such a module, see in_one_block."""
        if self._holds is not block:
            self._block.copy_(block, non_blocking=True)
            self._holds = block


@torch.inference_mode(False)
@torch.no_grad()
def in_one_block(module: nn.Module) -> torch.Tensor:
    """Move a module's parameters and buffers into one block of memory, each laid out as it was: uint8 [bytes]."""
    owners = [
        (tensors, name, tensor)
        for part in module.modules()
        for tensors in (part._parameters, part._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]
    places, size = [], 0
    for _, _, tensor in owners:
        places.append(size)
        size += -(-tensor.numel() * tensor.element_size() // _ALIGNED) * _ALIGNED
    block = torch.zeros(size, dtype=torch.uint8, device=next(module.buffers()).device)
    for (_, _, tensor), place in zip(owners, places, strict=True):
        stretch = block[place : place + tensor.numel() * tensor.element_size()].view(tensor.dtype)
        there = stretch.as_strided(tensor.shape, tensor.stride())
        there.copy_(tensor)
        tensor.data = there
    return block
