"""Frames on their way to the device, through two buffers in turn: one is written while the other is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from model.engine.device import REACHED, Device, Mark
from model.images.frames import Frame

BUFFERS = 2


@dataclass
class _Buffer:
    """sent: when the device has read the host's part. used: when it has read its own."""

    host_BSSC: torch.Tensor
    there_BSSC: torch.Tensor
    sent: Mark = REACHED
    used: Mark = REACHED


class Staging:
    """For frames of one size. Not thread-safe."""

    def __init__(self, device: Device, side: int) -> None:
        self._device, self._side = device, side
        self._buffers: list[_Buffer] = []
        self._turn = 0

    @contextmanager
    def sent(self, frames: Sequence[Frame]) -> Iterator[torch.Tensor]:
        """uint8 [B, S, S, 3] on the device. What reads it is begun inside; outside, the next batch may overwrite it."""
        buffer = self._next(len(frames))
        buffer.sent.wait()
        host_BSSC, there_BSSC = buffer.host_BSSC[: len(frames)], buffer.there_BSSC[: len(frames)]
        np.stack([frame.pixels for frame in frames], out=host_BSSC.numpy())
        buffer.sent = self._device.send(host_BSSC, there_BSSC, buffer.used)
        try:
            yield there_BSSC
        finally:
            buffer.used = self._device.mark()

    def _next(self, rows: int) -> _Buffer:
        if not self._buffers or len(self._buffers[0].host_BSSC) < rows:
            for buffer in self._buffers:  # nothing may be reading what is given back
                buffer.sent.wait()
                buffer.used.wait()
            hosts = [self._device.host_buffer((rows, self._side, self._side, 3), torch.uint8) for _ in range(BUFFERS)]
            self._buffers = [_Buffer(host, self._device.device_buffer(host)) for host in hosts]
        self._turn = (self._turn + 1) % BUFFERS
        return self._buffers[self._turn]
