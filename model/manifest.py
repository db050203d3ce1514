"""What is known about a product's model, and the bundle of manifest and weights that travels to the registry.

A bundle is two byte strings: manifest.json and weights.safetensors. The manifest carries the weights' sha256, so one
cannot be swapped for another without being noticed; nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.errors import BundleError, WeightsError
from model.evidence.evidence import Evidence
from model.images.exposure import Exposure
from model.images.frames import Frame, ImageLimits, Resize, read_frame
from model.images.ignored import Cover, IgnoredArea
from model.images.reading import AS_THE_FILE_SAYS, Reading
from model.images.registration import Registration
from model.images.tolerance import Tolerance
from model.measures.proportions import percent, percent_interval
from model.measures.splits import HELD_OUT_FRACTION
from model.network.student import Method, Statistics, Student
from model.teachers import teacher_spec

BRIGHTNESS_CORRELATION = "brightness_correlation"
"""Of a manifest's metrics: the rank correlation of held-out good images' scores with their mean gray level."""
_CORRELATED_99 = 2.5758
"""Deviations of a rank correlation of nothing, 1 / sqrt(n - 1), that it exceeds in one of a hundred cases."""
INT8_PREFIX = "int8."
"""Of the names of tensors in a version's weights that are no part of the student: its quantised graphs, as bytes, and
what they take besides levels."""
GIVEN = "given"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Backbone(_Record):
    """The teacher, and the exact weights file that the student was fitted to."""

    name: str
    weights_sha256: str


class Preprocessing(_Record):
    """size: side in pixels; mean, std: of RGB in 0..1; resize: how an image is brought to its size; tiles: cut, not
    resized; reading: what the product's images mean where files don't say; exposure: the light they are brought to;
    registration: the place.
    """

    size: int = Field(gt=0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Resize
    tiles: bool = False
    reading: Reading = AS_THE_FILE_SAYS
    exposure: Exposure | None = None
    registration: Registration | None = None

    def read(self, data: bytes, limits: ImageLimits | None = None) -> Frame:
        """Bytes to the frame that the model takes. Raises ImageRejected."""
        return read_frame(
            data, self.size, limits or ImageLimits(), tiled=self.tiles, reading=self.reading, resize=self.resize
        )

    @property
    def input(self) -> NetworkInput:
        """What the teacher sees of it."""
        return (self.size, self.mean, self.std)


NetworkInput = tuple[int, tuple[float, float, float], tuple[float, float, float]]
TeacherKey = tuple[str, NetworkInput, str | None]


class Calibration(_Record):
    """Decision limits in units of the raw image score (see model/verdict/calibration.py).

    [review_low, review_high) is the review band around the threshold; pixel_threshold bounds a region's extent. The
    intervals, at 95%: of the score that exactly the target rate of good images exceed, and of the rate, a share of 1,
    at which good images exceed the threshold. images_needed: held-out images that are enough for the target. A
    version from before these were stated has None.
    """

    threshold: float = Field(gt=0)
    review_low: float = Field(gt=0)
    review_high: float = Field(gt=0)
    pixel_threshold: float = Field(gt=0)
    target_false_reject_rate: float = Field(gt=0, lt=1)
    threshold_interval: tuple[float, float] | None = None
    false_reject_interval: tuple[float, float] | None = None
    images_needed: int | None = Field(None, gt=0)
    heldout_images: int = Field(ge=0)
    heldout_median: float
    heldout_maximum: float

    @model_validator(mode="after")
    def _ordered(self) -> Calibration:
        if not self.pixel_threshold <= self.review_low <= self.threshold <= self.review_high:
            raise ValueError("pixel_threshold <= review_low <= threshold <= review_high does not hold")
        for name in ("threshold_interval", "false_reject_interval"):
            interval = getattr(self, name)
            if interval is not None and interval[0] > interval[1]:
                raise ValueError(f"{name} ends below its beginning")
        return self

    def describe(self) -> str:
        """Threshold and false-reject rate with their intervals; how many images are needed where there are too few."""
        target = percent(self.target_false_reject_rate)
        text = f"threshold {self.threshold:.4g} from {self.heldout_images} held-out good images"
        if self.threshold_interval is None or self.false_reject_interval is None:
            return f"{text}, aimed at {target} false rejects; this version was fitted before intervals were stated"
        least, most = self.threshold_interval
        text += f" (95% interval {least:.4g} to {most:.4g})"
        text += f"; false rejects: {target} aimed at, {percent_interval(self.false_reject_interval)} at 95% confidence"
        if self.images_needed is None or self.heldout_images >= self.images_needed:
            return text
        return (
            f"{text}; too few to promise {target}: {self.images_needed} held-out good images are needed, about "
            f"{round(self.images_needed / HELD_OUT_FRACTION):,} good images in all"
        )


class Training(_Record):
    """How the student was fitted. explained_variance: per level on held-out good images, 1 = rebuilt perfectly.

    level_importance: weights of the levels in the map (model/maps/spread.py). level_weights: mean weights of the
    levels in each fusion (model/network/fusion.py).
    """

    steps: int
    batch: int
    seed: int
    seconds: float
    images: int
    final_loss: float
    explained_variance: tuple[float, ...]
    level_importance: tuple[float, ...]
    level_weights: dict[str, list[float]]


class Quantisation(_Record):
    """That a version computes in int8, and what that changed (model/fitting/quantisation.py).

    teacher_sha256: of the quantised teacher, which versions share where they agree on it; None where the teacher stays
    in float32, and is everyone's. images: good images that ranges were read off. score_shift_sd: how far held-out
    images' scores moved from the float32 version's, by the median, in deviations of these: differences and deviation
    are of logarithms, each less its version's median, for a common factor is the threshold's affair.
    score_shift: what versions of before tell instead, as a share of the score, which says nothing of the shift in
    deviations.
    """

    teacher_sha256: str | None = None
    images: int = Field(gt=0)
    score_shift: float | None = Field(None, ge=0)
    score_shift_sd: float | None = Field(None, ge=0)


class Borne(_Record):
    """A tolerated change at the end of its range, and the share of good images that are rejected under it."""

    change: str
    false_reject_rate: float = Field(ge=0, le=1)


class Bearing(_Record):
    """What a version bears, and what of made-up defects it finds at its threshold (model/fitting/bearing.py).

    images: held-out good ones that it was measured on. found, found_if_strict: shares of the made-up defects, and of
    the same had nothing been tolerated.
    """

    images: int = Field(gt=0)
    changes: tuple[Borne, ...]
    found: float = Field(ge=0, le=1)
    found_if_strict: float = Field(ge=0, le=1)

    def describe(self) -> str:
        """What is rejected under each change, and the price."""
        each = ", ".join(f"{one.change} at {percent(one.false_reject_rate)}" for one in self.changes)
        cost = 100 * (self.found_if_strict - self.found)
        price = f"costs {cost:.1f} points" if cost >= 0.05 else "costs nothing"
        return (
            f"bears {each} false rejects (of {self.images} held-out good images); {price} of sensitivity: "
            f"{self.found:.0%} of made-up defects are found, {self.found_if_strict:.0%} if nothing were tolerated"
        )


class Manifest(_Record):
    """Everything about a model but its tensors. version is empty until the bundle is stamped.

    ignore: what of its images doesn't count; None, or not stated, where all does. evidence: what its statistics are
    judged by; None: a student alone, as versions were before. tolerance: what it was told to bear, None before that;
    bearing: what it does bear.
    heldout_scores: raw image scores that the threshold came from, in the order of heldout_sha256. metrics: by name.
    """

    schema_version: Literal[1] = 1
    product: str = Field(min_length=1)
    version: str = ""
    created: datetime
    parent: str | None = None
    dataset_digest: str = ""
    code_version: str = ""
    method: Method
    backbone: Backbone
    preprocessing: Preprocessing
    ignore: IgnoredArea | None = None
    calibration: Calibration
    evidence: Evidence | None = None
    tolerance: Tolerance | None = None
    bearing: Bearing | None = None
    quantisation: Quantisation | None = None
    training: Training
    metrics: dict[str, float] = {}
    heldout_sha256: list[str] = []
    heldout_scores: tuple[float, ...] = ()
    weights_sha256: str
    weights_bytes: int = Field(ge=0)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Raises BundleError: damaged, or of a later release, of which nothing may be left out."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            faults = [(".".join(map(str, one["loc"])), one["type"], one["msg"]) for one in error.errors()]
            later = [at for at, kind, _ in faults if kind == "extra_forbidden" or at == "schema_version"]
            told = f"not valid ({faults[0][0]}: {faults[0][2]}), damaged perhaps: restore it, or fit the product again"
            if later:
                told = (
                    f"of a later linewatch (unknown here: {', '.join(later)}): upgrade, or 'linewatch models rollback'"
                )
            raise BundleError(f"the manifest is {told}") from error

    def describe(self) -> list[str]:
        """Calibration, and what else a fit found out, each in words."""
        told = [self.calibration.describe()]
        told += [self.preprocessing.exposure.describe()] if self.preprocessing.exposure else []
        told += [self.preprocessing.registration.describe()] if self.preprocessing.registration else []
        told += [self.bearing.describe()] if self.bearing else []
        told += [self.ignore.describe()] if self.ignore else []
        correlation, images = self.metrics.get(BRIGHTNESS_CORRELATION, 0.0), len(self.heldout_scores)
        if images > 1 and abs(correlation) * math.sqrt(images - 1) > _CORRELATED_99:
            told.append(
                f"scores of good images follow their brightness (rank correlation {correlation:+.2f} over {images}): "
                "the light varies; fit.exposure takes it out, fit.tolerate bears it"
            )
        return told

    def highest_held_out(self, most: int) -> list[tuple[str, float]]:
        """sha256 and score, a multiple of the threshold, of the held-out good images that score highest."""
        pairs = zip(self.heldout_sha256, self.heldout_scores, strict=False)
        ranked = sorted(pairs, key=lambda pair: -pair[1])[:most]
        return [(sha256, score / self.calibration.threshold) for sha256, score in ranked]

    def read(self, data: bytes, limits: ImageLimits | None = None) -> Frame:
        """Bytes to the frame that the model takes. Raises ImageRejected."""
        frame = self.preprocessing.read(data, limits)
        if self.ignore:
            self.ignore.check(frame.width, frame.height)
        return frame

    def cover(self) -> Cover | None:
        """The ignored area as it lies on the model's frames and maps; computed anew at each call."""
        return self.ignore.cover(self.preprocessing.size, self.preprocessing.tiles) if self.ignore else None

    @property
    def statistics(self) -> Statistics | None:
        """What the version knows of good features."""
        if self.evidence is None:
            return None
        return "pooled" if self.preprocessing.tiles else "places"

    @property
    def teacher_key(self) -> TeacherKey:
        """Images of two models with equal keys can share a pass of the teacher."""
        quantised = self.quantisation.teacher_sha256 if self.quantisation else None
        return (self.backbone.name, self.preprocessing.input, quantised)


@dataclass(frozen=True)
class ModelBundle:
    """A product's model as it is stored: manifest and weights (safetensors)."""

    manifest: Manifest
    weights: bytes

    @staticmethod
    def open(manifest_json: bytes, weights: bytes) -> ModelBundle:
        """Parse and check a stored bundle. Raises BundleError."""
        manifest = Manifest.parse(manifest_json)
        digest = hashlib.sha256(weights).hexdigest()
        if digest != manifest.weights_sha256:
            raise BundleError(
                f"weights of {manifest.product}/{manifest.version} have sha256 {digest[:16]}..., the manifest says "
                f"{manifest.weights_sha256[:16]}...: the object was damaged or replaced; restore it, or fit again"
            )
        return ModelBundle(manifest, weights)

    def manifest_json(self) -> bytes:
        """The manifest as it is stored, UTF-8, two spaces of indent."""
        return self.manifest.model_dump_json(indent=2).encode()

    def stamped(
        self,
        *,
        version: str,
        parent: str | None,
        dataset_digest: str,
        code_version: str,
        heldout_sha256: Sequence[str] = (),
        metrics: dict[str, float] | None = None,
    ) -> ModelBundle:
        """A copy that says where it comes from. metrics are added to those already there."""
        manifest = self.manifest.model_copy(
            update={
                "version": version,
                "parent": parent,
                "dataset_digest": dataset_digest,
                "code_version": code_version,
                "heldout_sha256": list(heldout_sha256),
                "metrics": {**self.manifest.metrics, **(metrics or {})},
            }
        )
        return ModelBundle(manifest, self.weights)

    def student(self) -> Student:
        """Build the student from the weights, in eval mode on the CPU. Raises BundleError."""
        where = f"{self.manifest.product}/{self.manifest.version}"
        try:
            student = Student(
                teacher_spec(self.manifest.backbone.name),
                self.manifest.method,
                self.manifest.preprocessing.size,
                statistics=self.manifest.statistics,
            )
            tensors = load_tensors(self.weights)
            student.load_state_dict({name: t for name, t in tensors.items() if not name.startswith(INT8_PREFIX)})
        except (SafetensorError, RuntimeError, WeightsError) as error:
            raise BundleError(
                f"the weights of {where} do not fit a {self.manifest.method} student of "
                f"{self.manifest.backbone.name}: {error}; fit the product again with this version of linewatch"
            ) from error
        return student.eval()

    def in_float32(self) -> ModelBundle:
        """The version without its quantisation: to compare scores with. Limits stay those of int8."""
        return ModelBundle(self.manifest.model_copy(update={"quantisation": None}), self.weights)

    def int8_graphs(self) -> dict[str, tuple[bytes, bytes]]:
        """ "student", and "teacher" where it is quantised -> a graph's xml and weights. Raises BundleError."""
        quantisation = self.manifest.quantisation
        parts = ("student", "teacher") if quantisation and quantisation.teacher_sha256 else ("student",)
        try:
            tensors = load_tensors(self.weights)
            return {
                part: (_content(tensors[f"{INT8_PREFIX}{part}.xml"]), _content(tensors[f"{INT8_PREFIX}{part}.bin"]))
                for part in parts
            }
        except (SafetensorError, KeyError) as error:
            raise BundleError(
                f"the weights of {self.manifest.product}/{self.manifest.version} hold no int8 graphs ({error}); "
                "quantise or fit the product again"
            ) from error

    def int8_given(self) -> list[np.ndarray]:
        """What the int8 student's graph takes besides levels, float32; none of versions from before."""
        tensors = load_tensors(self.weights)
        names = (f"{INT8_PREFIX}{GIVEN}.{place}" for place in range(len(tensors)))
        return [tensors[name].float().numpy() for name in itertools.takewhile(tensors.__contains__, names)]


def _content(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.numpy())


def student_weights(student: Student) -> bytes:
    """A student's parameters and buffers as safetensors; what is exact in float16 and most of the bytes, in that."""
    state = {
        name: (tensor.half() if name.endswith(".directions") else tensor).detach().cpu().contiguous()
        for name, tensor in student.state_dict().items()
    }
    data: bytes = save_tensors(state)
    return data


def state_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
