"""Anomalib as a peer of model.bench: a process in its own environment, asked over its stdin and stdout."""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np

from model.bench.engine import OfBatch
from model.bench.interleaved import Run
from model.bench.runs import OnProgress
from model.errors import ModelError
from model.images.frames import Frame

DRIVER = Path(__file__).with_name("peer_driver.py")
OPENVINO_MODES = ("openvino_default", "openvino_fp32", "openvino_int8")


class PeerError(ModelError):
    """The peer can't be installed, or failed to do what it was asked."""


class AnomalibPeer:
    """Implements model.bench.runs.Peer. Use it as a context manager: the process ends with it.

    python: an interpreter that has anomalib. device: cpu or cuda, as ours; its exports are for CPUs, and left out on a
    GPU.
    """

    def __init__(self, python: Path, device: str = "cpu") -> None:
        self._python, self._device = python, device
        self._described: dict[str, object] = {"name": "anomalib"}

    def __enter__(self) -> AnomalibPeer:
        self._folder = TemporaryDirectory(prefix="linewatch-peer-")
        self._log = Path(self._folder.name, "peer.log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = getattr(self, "_process", None)
        if process:
            process.stdin.close()  # the driver ends when its requests do
            process.stdout.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def load(self, backbone: str, frames: Sequence[Frame], weights: Path | None, threads: int) -> None:
        """Start the process with the threads of ours and give it the images and the encoder's weights."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), "-I", "-W", "ignore", str(DRIVER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._folder.name,  # anomalib writes caches where it stands
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            )
        pixels = Path(self._folder.name, "frames.npy")
        np.save(pixels, np.stack([frame.pixels for frame in frames]))
        self._described |= self._ask(
            "load",
            backbone=backbone,
            size=frames[0].size,
            threads=threads,
            frames=str(pixels),
            weights=str(weights) if weights else None,
            device=self._device,
            folder=self._folder.name,
        )

    def modes(self, batches: Sequence[int], on_progress: OnProgress) -> Mapping[str, OfBatch]:
        """torch and the exports; an export that fails, or fails to score, is left out; the description says why."""
        ready = ["torch"]
        for number, mode in enumerate(OPENVINO_MODES if self._device == "cpu" else ()):
            on_progress("exporting anomalib's model to OpenVINO", number, len(OPENVINO_MODES))
            try:
                self._described[mode] = self._ask("export", mode=mode)
                for batch in batches:
                    self._ask("score", mode=mode, batch=batch, batches=1)
                ready.append(mode)
            except PeerError as error:
                self._described[mode] = {"failed": str(error)}
        return {f"peer_{mode}": self._of_batch(mode) for mode in ready}

    def begin_training(self) -> None:
        self._described |= self._ask("begin_training")

    def step(self, rows: Sequence[int]) -> tuple[float, float]:
        answer = self._ask("steps", rows=[list(rows)])
        return float(answer["seconds"][0]), float(answer["losses"][0])

    def describe(self) -> dict[str, object]:
        return dict(self._described)

    def _of_batch(self, mode: str) -> OfBatch:
        def of_batch(batch: int) -> Run:
            return lambda batches: float(self._ask("score", mode=mode, batch=batch, batches=batches)["seconds"])

        return of_batch

    def _ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises PeerError."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            told = " / ".join(deque((t for t in self._log.read_text(errors="replace").splitlines() if t.strip()), 3))
            raise PeerError(
                f"anomalib's process ended while it was asked to {do}, exit status {self._process.wait()}: {told[:400]}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"anomalib failed to {do}: {answer['error']}")
        return answer
