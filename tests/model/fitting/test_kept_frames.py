"""Frames beyond what memory is to hold lie in a file, and are the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from model import FitError, Frame
from model.fitting.kept_frames import KeptFrames


def frame(seed: int, height: int = 8, width: int = 8) -> Frame:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(pixels, 10 * width, 10 * height)


@pytest.mark.parametrize("in_memory", [0, 500, 1 << 20])
def test_they_come_as_they_went(in_memory: int) -> None:
    given = [frame(seed, 8 + seed, 8) for seed in range(6)]
    kept = KeptFrames(iter(given), in_memory)
    assert len(kept) == 6
    for mine, its in zip(kept, given, strict=True):
        assert np.array_equal(mine.pixels, its.pixels)
        assert (mine.width, mine.height) == (its.width, its.height)
    assert np.array_equal(kept[-1].pixels, given[-1].pixels)
    assert [one.height for one in kept[1:4]] == [one.height for one in given[1:4]]
    with pytest.raises(IndexError):
        kept[6]


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: bytes) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(FitError, match=r"No space left on device; make room there, or set TMPDIR"):
        KeptFrames([frame(0)], in_memory=0)


def test_only_so_many_are_held_at_once() -> None:
    """Given one at a time, none beyond the limit is kept alive."""
    alive: list[int] = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive.append(-1)

    def given() -> Iterator[Frame]:
        for _ in range(20):
            alive.append(1)
            pixels = np.zeros((8, 8, 3), dtype=np.uint8).view(Counted)
            yield Frame(pixels, 8, 8)
            del pixels
            assert sum(alive) <= 4

    kept = KeptFrames(given(), in_memory=2 * 192)
    assert len(kept) == 20
