"""The frozen teacher's features of all training images, computed once.

There is no augmentation, so the features of an image never change; a step then costs the student alone.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from model.errors import FitError


class FeatureCache:
    """Levels of `count` images, kept as [N, H, W, C] so that every batch comes out channels_last.

    Lives on the device while it fits the limit, otherwise, in half the bytes, in a memory-mapped temporary file that
    has no name and is gone with the process.
    """

    def __init__(self, count: int, dtype: torch.dtype, limit_bytes: int, device: torch.device) -> None:
        self.count = count
        self.dtype = dtype
        self.limit_bytes = limit_bytes
        self.device = device
        self.on_disk = False
        self._levels: list[torch.Tensor] = []

    def put(self, start: int, levels: Sequence[torch.Tensor]) -> None:
        """Store levels [B, C_l, H_l, W_l] of images start .. start + B - 1. Raises FitError where the disk is full."""
        if not self._levels:
            self._allocate(levels)
        for stored, x_BCHW in zip(self._levels, levels, strict=True):
            stored[start : start + x_BCHW.shape[0]] = x_BCHW.permute(0, 2, 3, 1)

    def get(self, indexes: Sequence[int]) -> list[torch.Tensor]:
        """Levels [B, C_l, H_l, W_l] of these images on the device, float32."""
        rows = torch.as_tensor(indexes)
        return [
            stored[rows.to(stored.device)].to(self.device, torch.float32).permute(0, 3, 1, 2) for stored in self._levels
        ]

    def batches(self, size: int, until: int) -> Iterator[list[torch.Tensor]]:
        """The first `until` images in order, `size` at a time."""
        for start in range(0, until, size):
            yield self.get(range(start, min(start + size, until)))

    def changes(
        self, prepare: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]], copies: int, size: int
    ) -> Iterator[list[torch.Tensor]]:
        """By how much the last `copies` images, prepared, differ from as many first ones that they are copies of."""
        for start in range(0, copies, size):
            at = range(start, min(start + size, copies))
            changed = prepare(self.get([self.count - copies + index for index in at]))
            yield [copy - own for copy, own in zip(changed, prepare(self.get(at)), strict=True)]

    def _allocate(self, levels: Sequence[torch.Tensor]) -> None:
        shapes = [(self.count, *x_BCHW.permute(0, 2, 3, 1).shape[1:]) for x_BCHW in levels]
        needed = sum(math.prod(shape) for shape in shapes) * self.dtype.itemsize
        self.on_disk = needed > self.limit_bytes
        if self.on_disk and self.dtype == torch.float32:
            self.dtype = torch.float16  # rounding by a thousandth is far below what targets vary by
        if not self.on_disk:
            self._levels = [torch.empty(shape, dtype=self.dtype, device=self.device) for shape in shapes]
            return
        for shape in shapes:
            size = math.prod(shape) * self.dtype.itemsize
            with tempfile.TemporaryFile(prefix="linewatch-features-") as file:
                try:
                    # A mapping of a file that has no blocks yet would end the process where the disk is full.
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:
                    raise FitError(
                        f"features of {self.count} images take {size >> 20} MB more in {tempfile.gettempdir()}: "
                        f"{error.strerror}; make room there, or set TMPDIR"
                    ) from None
                # The mapping outlives the file object, and the file has no name any more.
                raw = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
            self._levels.append(torch.from_numpy(raw).view(self.dtype).reshape(shape))
