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
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar, cast
from weakref import WeakSet

import numpy as np
import torch
from torch import nn

from model.blocks import computing_in
from model.engine.backend import LoadedStudent, MapsToCome, check_teacher
from model.engine.device import Device, Lap, device_of
from model.engine.precision import MOST_SHIFT, NAMES, TRIAL_IMAGES, golden_frames, shift
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


@dataclass(frozen=True, eq=False)
class Form:
    """A student in serving form and in one precision. kind: equal for all of its shape. block: see replays.py."""

    module: Student
    dtype: torch.dtype
    kind: Hashable
    block: torch.Tensor | None = None


class TorchStudent:
    """A product's student. exact: in float32, while it is not yet known what the form's precision does to scores.

    A drawn image is far from good and tells little of that, so the product's own images decide: the first TRIAL_IMAGES
    that look good are computed in both, and get the exact score.
    """

    def __init__(self, manifest: Manifest, form: Form, exact: Form | None = None) -> None:
        self.manifest = manifest
        self.form = form
        self.exact = exact
        self.bytes = state_bytes(form.module) + (state_bytes(exact.module) if exact else 0)
        self._left = TRIAL_IMAGES

    def tried(self, maps: Sequence[np.ndarray], exact_maps: Sequence[np.ndarray]) -> None:
        """Of the same images in both. Decides, once enough are seen or one moves too far; what is decided stays."""
        exact = self.exact
        if exact is None:
            return
        looks_good = 2 * self.manifest.calibration.threshold
        pairs = [(self._score(one), self._score(other)) for one, other in zip(maps, exact_maps, strict=True)]
        pairs = [pair for pair in pairs if pair[1] < looks_good]
        moved = shift([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        if moved > MOST_SHIFT:
            log.warning(
                "%s/%s computes in float32 from now on: %s moves scores of its images by %.1f%%, the bound is %.0f%%",
                self.manifest.product, self.manifest.version, NAMES[self.form.dtype], 100 * moved, 100 * MOST_SHIFT,
            )  # fmt: skip
            self.form = exact
        self._left -= len(pairs)
        if self._left <= 0 or moved > MOST_SHIFT:
            self.exact = None
            self.bytes = state_bytes(self.form.module)

    def _score(self, maps_KHW: np.ndarray) -> float:
        return judged(maps_KHW, self.manifest.evidence)[1]


class TorchBackend:
    """See the module.

    precisions: of the convolutions of teacher and student, tried in turn for each product as it is loaded: the first
    that moves scores of golden images by no more than MOST_SHIFT, and then those of the product's own, else the last,
    which is exact. One alone is taken as it is, none is float32. Targets, errors, statistics and maps stay in float32.

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
        self._students: WeakSet[TorchStudent] = WeakSet()
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
        self._students.add(student)
        return student

    @torch.inference_mode()
    def begin(self, manifest: Manifest, frames: Sequence[Frame], students: Sequence[LoadedStudent]) -> MapsToCome:
        found: list[tuple[list[int], torch.Tensor]] = []
        trials: list[tuple[TorchStudent, list[int], torch.Tensor]] = []
        with self._device.computing():
            self._lap("begun")
            # In this order: whoever ends a trial meanwhile sets the form first.
            runs = [(student, student.exact, student.form, rows) for student, rows in _runs(students)]
            for dtype in dict.fromkeys(form.dtype for *_, form, _ in runs):
                of_dtype = [run for run in runs if run[2].dtype == dtype]
                levels = self._levels(manifest, dtype, [frames[row] for *_, rows in of_dtype for row in rows])
                self._lap("teacher")
                first = 0
                for *_, form, rows in of_dtype:
                    maps_BKHW = self._maps(form, [level[first : first + len(rows)] for level in levels])
                    self._lap("students")
                    found.append((rows, self._device.fetch(maps_BKHW)))
                    self._lap("fetched")
                    first += len(rows)
            for student, exact, _, rows in runs:
                if exact:
                    levels = self._levels(manifest, exact.dtype, [frames[row] for row in rows], recorded=False)
                    maps_BKHW = exact.module.anomaly_maps(levels, precision=exact.dtype)
                    trials.append((student, rows, self._device.fetch(maps_BKHW)))
            done = self._device.mark()

        def maps() -> list[np.ndarray]:
            done.wait()
            of_row = {row: map_KHW for rows, of in found for row, map_KHW in zip(rows, self._own(of), strict=True)}
            for student, rows, of in trials:
                exact_maps = self._own(of)
                student.tried([of_row[row] for row in rows], exact_maps)
                of_row |= zip(rows, exact_maps, strict=True)
            return [of_row[row] for row in range(len(frames))]

        return maps

    def batches(self, most: int) -> Sequence[int]:
        return buckets(most) if self._device.replays else (1,)

    def describe(self) -> dict[str, object]:
        computing = Counter(NAMES[student.form.dtype] for student in list(self._students))
        told: dict[str, object] = {"device": str(self._device.of_torch), "products": dict(computing)}
        if self._device.replays:
            told |= {"recorded": self._device.recorded, "recording_s": round(self._device.recording_s, 2)}
        return told

    # Inside

    def _own(self, maps: torch.Tensor) -> list[np.ndarray]:
        """A GPU's are in memory that is wanted back soon."""
        copied = self._device.of_torch.type != "cpu"
        return [map_KHW.copy() if copied else map_KHW for map_KHW in maps.numpy()]

    def _levels(
        self, manifest: Manifest, precision: torch.dtype, frames: Sequence[Frame], *, recorded: bool = True
    ) -> _Levels:
        """The teacher's, of frames."""
        side = manifest.preprocessing.size
        if side not in self._staging:
            self._staging[side] = Staging(self._device, side)
        with self._staging[side].sent(frames) as pixels_BSS3:
            self._lap("sent")
            teacher = self._pass(manifest, precision)
            return teacher([pixels_BSS3]) if recorded else teacher.once([pixels_BSS3])

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

    def _maps(self, form: Form, levels: _Levels) -> torch.Tensor:
        """[B, K, S / 4, S / 4]; where the device replays, overwritten by the next of its shape."""
        if form.block is None:
            return form.module.anomaly_maps(levels, precision=form.dtype)
        kind = (form.kind, form.dtype)
        if kind not in self._moulds:
            mould = Mould(form.module)
            self._moulds[kind] = (
                mould,
                Bucketed(self._device, lambda levels: [mould.module.anomaly_maps(levels, precision=form.dtype)]),
            )
        mould, bucketed = self._moulds[kind]
        mould.take_on(form.block)
        return bucketed(levels)[0]

    def _student(self, bundle: ModelBundle) -> TorchStudent:
        """In the first precision that keeps the bound on golden images; on trial where it is not the last."""
        manifest = bundle.manifest
        served = serving_form(bundle.student()).to(self._device.of_torch)
        last = self._form(manifest, served, self._precisions[-1])
        exact: list[float] = []
        for precision in self._precisions[:-1]:
            form = self._form(manifest, served, precision)
            exact = exact or self._golden_scores(last, manifest)
            moved = shift(self._golden_scores(form, manifest), exact)
            if moved <= MOST_SHIFT:
                return TorchStudent(manifest, form, exact=last)
            log.warning(
                "%s/%s does not compute in %s: it moves scores of golden images by %.1f%%, the bound is %.0f%%",
                manifest.product, manifest.version, NAMES[precision], 100 * moved, 100 * MOST_SHIFT,
            )  # fmt: skip
        return TorchStudent(manifest, last)

    def _form(self, manifest: Manifest, served: Student, precision: torch.dtype) -> Form:
        kind = (manifest.backbone.name, manifest.method, manifest.preprocessing.size, manifest.statistics)
        module = in_precision(served, precision)
        return Form(module, precision, kind, in_one_block(module) if self._device.replays else None)

    @torch.inference_mode()
    def _golden_scores(self, form: Form, manifest: Manifest) -> list[float]:
        """Launched one by one, not replayed: `load` runs beside `begin`, whose recordings these are."""
        key = (manifest.backbone.name, manifest.preprocessing.input, form.dtype)
        if key not in self._golden:
            pixels = np.stack([frame.pixels for frame in golden_frames(manifest.preprocessing.size)])
            pixels_BSS3 = torch.from_numpy(pixels).to(self._device.of_torch)
            self._golden[key] = self._pass(manifest, form.dtype).once([pixels_BSS3])
        maps = form.module.anomaly_maps(self._golden[key], precision=form.dtype)
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


def _runs(students: Sequence[LoadedStudent]) -> Iterator[tuple[TorchStudent, list[int]]]:
    """Each student and its rows, which lie side by side."""
    for student, same in groupby(enumerate(students), key=lambda pair: pair[1]):
        assert isinstance(student, TorchStudent)
        yield student, [row for row, _ in same]
