"""PyTorch, channels_last: one path from frames to maps for CPUs and GPUs.

    frames      staged in one of two buffers of the host, sent while the device computes (staging.py)
    teacher     normalises and computes; for a GPU in buckets of batches, replayed (replays.py)
    students    each its own rows, side by side; for a GPU all of one shape by one recording
    maps        to the host, waited for by whoever asks for them

In float32 it is the reference that others are checked against.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Hashable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar, cast

import numpy as np
import torch
from torch import nn

from model.blocks import computing_in
from model.engine.backend import LoadedStudent, MapsToCome, check_teacher
from model.engine.device import Device, Lap, device_of
from model.engine.precision import MOST_SHIFT, NAMES, golden_frames, shift
from model.engine.replays import Bucketed, Mould, buckets, in_one_block
from model.engine.serving_form import serving_form
from model.engine.staging import Staging
from model.errors import BundleError
from model.images.frames import Frame, pixel_affine
from model.manifest import Manifest, ModelBundle, NetworkInput, state_bytes
from model.network.student import Student
from model.teachers import Teacher, load_teacher
from model.verdict.scored import judged

log = logging.getLogger(__name__)
_Levels = list[torch.Tensor]
M = TypeVar("M", bound=nn.Module)


class TorchStudent:
    """A student in serving form. bytes: of its parameters and buffers. kind: equal for all of its shape."""

    def __init__(self, module: Student, precision: torch.dtype, kind: Hashable) -> None:
        self.module = module
        self.dtype = precision
        self.precision = NAMES[precision]
        self.kind = (kind, precision)
        self.bytes = state_bytes(module)
        self.block: torch.Tensor | None = None


class TorchBackend:
    """See the module.

    precisions: of the convolutions of teacher and student, tried in turn for each product as it is loaded: the first
    that moves scores by less than MOST_SHIFT, else the last. One alone is taken as it is, none is float32. Targets,
    errors, statistics and maps stay in float32.

    laps: where a list is put there, each stage of `begin` notes in it when the device was done.
    """

    def __init__(self, device: str | Device = "auto", *precisions: torch.dtype) -> None:
        self._device = device_of(device) if isinstance(device, str) else device
        self._precisions = precisions or (torch.float32,)
        self._teachers: dict[tuple[str, torch.dtype], Teacher] = {}
        self._passes: dict[tuple[str, NetworkInput, torch.dtype], Bucketed] = {}
        self._moulds: dict[Hashable, tuple[Mould[Student], Bucketed]] = {}
        self._staging: dict[int, Staging] = {}
        self._golden: dict[tuple[str, NetworkInput, torch.dtype], _Levels] = {}
        self._products: dict[str, int] = {}
        self.laps: list[tuple[str, Lap]] | None = None

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        manifest = bundle.manifest
        if manifest.quantisation is not None:
            raise BundleError(
                f"{manifest.product}/{manifest.version} computes in int8, which the backend torch does not: serve it "
                "on the CPU with engine.backend openvino, or fit the product with precision fp32"
            )
        name = manifest.backbone.name
        check_teacher(manifest, self._teacher(name, self._precisions[0]).weights_sha256)
        with self._device.computing():
            student = self._student(bundle)
            self._device.mark().wait()
        self._products[student.precision] = self._products.get(student.precision, 0) + 1
        return student

    @torch.inference_mode()
    def begin(self, manifest: Manifest, frames: Sequence[Frame], students: Sequence[LoadedStudent]) -> MapsToCome:
        precision = _own(students[0]).dtype
        with self._device.computing():
            self._lap("begun")
            levels = self._levels(manifest, precision, frames)
            self._lap("teacher")
            found = []
            for student, rows in _runs(students):
                own = [level[rows] for level in levels]
                maps_BKHW = self._maps(student, own)
                self._lap("students")
                found.append(self._device.fetch(maps_BKHW))
                self._lap("fetched")
            done = self._device.mark()

        def maps() -> list[np.ndarray]:
            done.wait()
            # A GPU's are in memory that is wanted back soon.
            copied = self._device.of_torch.type != "cpu"
            return [row.copy() if copied else row for of_student in found for row in of_student.numpy()]

        return maps

    def batches(self, most: int) -> Sequence[int]:
        return buckets(most) if self._device.replays else (1,)

    def describe(self) -> dict[str, object]:
        told: dict[str, object] = {"device": str(self._device.of_torch), "products_loaded": dict(self._products)}
        if self._device.replays:
            told |= {"recorded": self._device.recorded, "recording_s": round(self._device.recording_s, 2)}
        return told

    # Inside

    def _levels(self, manifest: Manifest, precision: torch.dtype, frames: Sequence[Frame]) -> _Levels:
        """The teacher's, of frames."""
        side = manifest.preprocessing.size
        if side not in self._staging:
            self._staging[side] = Staging(self._device, side)
        with self._staging[side].sent(frames) as pixels_BSS3:
            self._lap("sent")
            return self._pass(manifest, precision)([pixels_BSS3])

    def _lap(self, stage: str) -> None:
        if self.laps is not None:
            self.laps.append((stage, self._device.lap()))

    def _pass(self, manifest: Manifest, precision: torch.dtype) -> Bucketed:
        name, seen = manifest.backbone.name, manifest.preprocessing.input
        key = (name, seen, precision)
        if key not in self._passes:
            teacher = self._teacher(name, precision)
            scale_C, shift_C = (x_C.to(self._device.of_torch) for x_C in pixel_affine(*seen[1:]))

            def levels(inputs: Sequence[torch.Tensor]) -> _Levels:
                # Permuting NHWC memory gives a channels_last tensor without a copy.
                images_B3SS = (inputs[0].float() * scale_C + shift_C).permute(0, 3, 1, 2)
                with computing_in(precision, self._device.of_torch):
                    return teacher(images_B3SS)

            self._passes[key] = Bucketed(self._device, levels)
        return self._passes[key]

    def _maps(self, student: TorchStudent, levels: _Levels) -> torch.Tensor:
        """[B, K, S / 4, S / 4]; where the device replays, overwritten by the next of its shape."""
        if student.block is None:
            return student.module.anomaly_maps(levels, precision=student.dtype)
        if student.kind not in self._moulds:
            mould = Mould(student.module)
            self._moulds[student.kind] = (
                mould,
                Bucketed(self._device, lambda levels: [mould.module.anomaly_maps(levels, precision=student.dtype)]),
            )
        mould, bucketed = self._moulds[student.kind]
        mould.take_on(student.block)
        return bucketed(levels)[0]

    def _student(self, bundle: ModelBundle) -> TorchStudent:
        """In the first precision that keeps the bound."""
        manifest = bundle.manifest
        served = serving_form(bundle.student()).to(self._device.of_torch)
        kind = (manifest.backbone.name, manifest.method, manifest.preprocessing.size, manifest.statistics)
        exact: list[float] = []
        for precision in self._precisions:
            student = TorchStudent(in_precision(served, precision), precision, kind)
            if precision != self._precisions[-1]:
                exact = exact or self._golden_scores(TorchStudent(served, torch.float32, kind), manifest)
                moved = shift(self._golden_scores(student, manifest), exact)
                if moved > MOST_SHIFT:
                    log.warning(
                        "%s/%s does not compute in %s: it moves scores of golden images by %.1f%%, the bound is %.0f%%",
                        manifest.product, manifest.version, student.precision, 100 * moved, 100 * MOST_SHIFT,
                    )  # fmt: skip
                    continue
            if self._device.replays:
                student.block = in_one_block(student.module)
            return student
        raise AssertionError("the last precision is taken")

    @torch.inference_mode()
    def _golden_scores(self, student: TorchStudent, manifest: Manifest) -> list[float]:
        """Launched one by one, not replayed: `load` runs beside `begin`, whose recordings these are."""
        key = (manifest.backbone.name, manifest.preprocessing.input, student.dtype)
        if key not in self._golden:
            pixels = np.stack([frame.pixels for frame in golden_frames(manifest.preprocessing.size)])
            pixels_BSS3 = torch.from_numpy(pixels).to(self._device.of_torch)
            self._golden[key] = self._pass(manifest, student.dtype).once([pixels_BSS3])
        maps = student.module.anomaly_maps(self._golden[key], precision=student.dtype)
        return [judged(maps_KHW, manifest.evidence)[1] for maps_KHW in maps.cpu().numpy()]

    def _teacher(self, name: str, precision: torch.dtype) -> Teacher:
        key = (name, precision)
        if key not in self._teachers:
            teacher = cast(nn.Module, load_teacher(name, self._device.of_torch))
            self._teachers[key] = cast(Teacher, in_precision(teacher, precision))
        return self._teachers[key]


def in_precision(module: M, precision: torch.dtype) -> M:
    """A copy whose convolutions and products keep their weights in this precision; the module itself in float32.

    Autocast would round them anew for every batch, to the same bits.
    """
    if precision == torch.float32:
        return module
    rounded = copy.deepcopy(module)
    for part in rounded.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            part.to(precision)
    return rounded


def _own(student: LoadedStudent) -> TorchStudent:
    assert isinstance(student, TorchStudent)
    return student


def _runs(students: Sequence[LoadedStudent]) -> Iterator[tuple[TorchStudent, slice]]:
    """Each student and its rows, which lie side by side."""
    first = 0
    for _, same in groupby(students, key=id):
        run = list(same)
        yield _own(run[0]), slice(first, first + len(run))
        first += len(run)
