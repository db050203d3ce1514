"""What differs between a CPU and a GPU: who waits for whom, and what is replayed instead of being launched.

A CPU has computed when a call returns. A GPU is given work and computes later: the host may write the next batch
meanwhile, if it writes elsewhere (model/engine/staging.py), and a sequence of kernels that is known beforehand is
launched at once, as a CUDA graph, where launching them one by one takes longer than computing them.

    CPU          nothing to wait for, nothing to replay
    CUDA         two streams, one that copies frames to the device and one that computes; graphs
    Rehearsal    a CPU that goes the GPU's way through buckets, buffers and replays: for tests and dry runs
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

log = logging.getLogger(__name__)

Recorded = Callable[[], list[torch.Tensor]]


class Mark(Protocol):
    """A point in the device's work."""

    def wait(self) -> None:
        """Until the device has come that far."""
        ...


class Lap(Protocol):
    """A point in the device's work whose time is known."""

    def seconds_since(self, earlier: Lap) -> float: ...


class Device(Protocol):
    """replays: whether functions are recorded once per size of batch. recorded: how many, and the seconds it took."""

    of_torch: torch.device
    replays: bool
    recorded: int
    recording_s: float

    def computing(self) -> AbstractContextManager[object]:
        """While it lasts, this thread's work is for the device's one order of computing."""
        ...

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Memory of the host that the device can read and write by itself."""
        ...

    def device_buffer(self, host: torch.Tensor) -> torch.Tensor:
        """Its counterpart on the device; the same memory where the device is the host."""
        ...

    def send(self, host: torch.Tensor, there: torch.Tensor, after: Mark) -> Mark:
        """Copy to the device once it is done with what lies there; what it computes from now on sees the copy.

        The mark: when the host's memory has been read.
        """
        ...

    def fetch(self, found: torch.Tensor) -> torch.Tensor:
        """A copy on the host, there once a mark made after it is reached."""
        ...

    def mark(self) -> Mark:
        """When all that was begun in `computing` is done."""
        ...

    def lap(self) -> Lap:
        """As `mark`, with its time."""
        ...

    def recording(self, function: Recorded) -> Recorded:
        """The same function, to be called often. It must read and write only tensors that stay where they are.

        What it returns is overwritten by its next call.
        """
        ...


class _Reached:
    def wait(self) -> None:
        pass


REACHED: Mark = _Reached()


class _Clock:
    def __init__(self) -> None:
        self.at_s = time.perf_counter()

    def seconds_since(self, earlier: Lap) -> float:
        assert isinstance(earlier, _Clock)
        return self.at_s - earlier.at_s


class CPU:
    """See the module."""

    replays = False

    def __init__(self) -> None:
        self.of_torch = torch.device("cpu")
        self.recorded, self.recording_s = 0, 0.0

    def computing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    def device_buffer(self, host: torch.Tensor) -> torch.Tensor:
        return host

    def send(self, host: torch.Tensor, there: torch.Tensor, after: Mark) -> Mark:  # noqa: ARG002
        return REACHED

    def fetch(self, found: torch.Tensor) -> torch.Tensor:
        return found

    def mark(self) -> Mark:
        return REACHED

    def lap(self) -> Lap:
        return _Clock()

    def recording(self, function: Recorded) -> Recorded:
        return function


class Rehearsal(CPU):
    """See the module. Results are overwritten as a graph's are, so that who keeps them is found out."""

    replays = True

    def device_buffer(self, host: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(host)

    def send(self, host: torch.Tensor, there: torch.Tensor, after: Mark) -> Mark:
        after.wait()
        there.copy_(host)
        return REACHED

    def fetch(self, found: torch.Tensor) -> torch.Tensor:
        return found.clone()

    def recording(self, function: Recorded) -> Recorded:
        self.recorded += 1
        kept = [torch.empty_like(tensor) for tensor in function()]

        def replay() -> list[torch.Tensor]:
            for mine, found in zip(kept, function(), strict=True):
                mine.copy_(found)
            return kept

        return replay


class CUDA:
    """See the module. Every launch of this process's engine on the device is in one order, that of its stream."""

    replays = True

    def __init__(self, name: str = "cuda") -> None:
        self.of_torch = torch.device(name)
        if self.of_torch.index is None:
            self.of_torch = torch.device("cuda", torch.cuda.current_device())
        self._computing = torch.cuda.Stream(self.of_torch)
        self._copying = torch.cuda.Stream(self.of_torch)
        # Replays follow one another and what they leave is copied before the next: they can share their scratch memory.
        self._pool = torch.cuda.graph_pool_handle()
        self.recorded, self.recording_s = 0, 0.0
        # Of the process: what is called float32 here has all its bits, in TF32 13 would be missing.
        torch.backends.cudnn.allow_tf32 = False

    def computing(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._computing)

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def device_buffer(self, host: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(host, device=self.of_torch)

    def send(self, host: torch.Tensor, there: torch.Tensor, after: Mark) -> Mark:
        if isinstance(after, _Event):
            self._copying.wait_event(after.event)
        with torch.cuda.stream(self._copying):
            there.copy_(host, non_blocking=True)
            sent = _Event(self._copying)
        self._computing.wait_event(sent.event)
        return sent

    def fetch(self, found: torch.Tensor) -> torch.Tensor:
        host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        return host.copy_(found.contiguous(), non_blocking=True)

    def mark(self) -> Mark:
        return _Event(self._computing)

    def lap(self) -> Lap:
        return _Event(self._computing, timed=True)

    def recording(self, function: Recorded) -> Recorded:
        """A CUDA graph; the function itself, and a warning, where it can't be captured."""
        begun = time.perf_counter()
        for _ in range(2):  # libraries choose their kernels, which they can't while they are recorded
            function()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads load students meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                found = function()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("not replayed as a CUDA graph, and slower for it: %s", str(error).splitlines()[0])
            return function
        self.recorded += 1
        self.recording_s += time.perf_counter() - begun

        def replay() -> list[torch.Tensor]:
            graph.replay()
            return found

        return replay


class _Event:
    def __init__(self, stream: torch.cuda.Stream, *, timed: bool = False) -> None:
        self.event = torch.cuda.Event(enable_timing=timed)
        self.event.record(stream)

    def wait(self) -> None:
        self.event.synchronize()

    def seconds_since(self, earlier: Lap) -> float:
        assert isinstance(earlier, _Event)
        return float(earlier.event.elapsed_time(self.event)) / 1000


def device_of(name: str) -> Device:
    """auto, cpu, rehearsal, cuda or cuda:N."""
    if name == "rehearsal":
        return Rehearsal()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return CPU() if torch.device(name).type == "cpu" else CUDA(name)
