"""Frames of a fit, however many: a product's twenty thousand images would fill memory several times over."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from model.errors import FitError
from model.images.frames import Frame

FRAMES_BYTES = 128 << 20
"""Of pixels that stay in memory."""


class KeptFrames(Sequence[Frame]):
    """Frames in order; from FRAMES_BYTES on in a temporary file that has no name and is gone with the process.

    One that lies there is read anew each time.
    """

    def __init__(self, frames: Iterable[Frame], in_memory: int = FRAMES_BYTES) -> None:
        """Raises FitError where the disk is full."""
        self._memory: list[Frame] = []
        self._places: list[tuple[int, tuple[int, ...], int, int]] = []  # offset, shape, width, height
        self._file = None
        room, offset = in_memory, 0
        for frame in frames:
            room -= frame.pixels.nbytes
            if room >= 0 and self._file is None:
                self._memory.append(frame)
                continue
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="linewatch-frames-")  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            try:
                self._file.write(frame.pixels.tobytes())
            except OSError as error:
                raise FitError(
                    f"frames can't be kept in {tempfile.gettempdir()}: {error.strerror}; make room there, or set TMPDIR"
                ) from None
            self._places.append((offset, frame.pixels.shape, frame.width, frame.height))
            offset += frame.pixels.nbytes

    def __len__(self) -> int:
        return len(self._memory) + len(self._places)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self._memory[index] if index < len(self._memory) else self._read(index - len(self._memory))

    def __iter__(self) -> Iterator[Frame]:
        return map(self.__getitem__, range(len(self)))

    def _read(self, index: int) -> Frame:
        assert self._file is not None
        offset, shape, width, height = self._places[index]
        self._file.seek(offset)
        pixels = np.frombuffer(self._file.read(math.prod(shape)), dtype=np.uint8)
        return Frame(pixels.reshape(shape), width, height)
