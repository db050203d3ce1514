"""What can be chosen about a fit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from model.images.exposure import ExposureOption
from model.images.polygons import Ignore
from model.images.reading import Reading
from model.images.tolerance import Tolerance
from model.network.student import Method
from model.teachers.teacher import Recipe

Precision = Literal["fp32", "int8"]
MOST_SCORE_SHIFT = 0.5
"""A quantised version whose held-out scores moved further (model.manifest.Quantisation) is not to serve."""


class FitOptions(Reading):
    """Defaults are one recipe for all products; see docs/method.md for what was measured with it."""

    backbone: str = Field("efficientnet_lite0", description="The teacher; one of model.teachers.TEACHERS.")
    method: Method = Field(
        "fusion", description="Asymptotic fusion, or a row of its ablation (model.network.student.Method)."
    )
    evidence: Literal["statistics", "student"] = Field(
        "statistics", description="What the image score comes from; student: its map alone, as in versions before."
    )
    size: int = Field(256, ge=64, multiple_of=32, description="Side in pixels that images are resized to.")
    tiles: bool = Field(
        False, description="Score overlapping tiles of that side at full resolution: small defects on large images."
    )
    ignore: Ignore = Field(
        None, description="Places that don't count: polygons in pixels of the image, or the path of a mask image."
    )
    steps: int = Field(300, ge=1, description="Training steps; the last one's weights are kept.")
    patience: int | None = Field(
        None, ge=1, description="Stop early where held-out good images' loss has not fallen for so many steps."
    )
    corruptions: int = Field(
        3, ge=0, le=32, description="Spoiled copies of each image to learn from; 0 learns from good ones alone."
    )
    tolerate: Tolerance = Field(
        Tolerance(), description="What good parts may look like besides: light, place, sharpness."
    )
    exposure: ExposureOption = Field(
        "auto", description="Bring each image's light to the good ones': by the whole image, its border, or polygons."
    )
    align: bool = Field(False, description="Bring parts to one place first, where good images say that it helps.")
    precision: Precision = Field("fp32", description="int8: the fitted version is quantised for the CPU (OpenVINO).")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that share the fit of a product with very many images; batch is shared out.",
    )
    batch: int = Field(16, ge=2, description="Images per step.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate; none: the teacher's recipe.")
    seed: int = Field(0, ge=0, description="Decides initial weights and batch order.")
    target_false_reject_rate: float = Field(
        0.005, gt=0, le=0.5, description="Fraction of good parts that may be rejected (overkill)."
    )
    cache_limit_bytes: int = Field(
        1 << 30, ge=0, description="Teacher features beyond this go to a memory-mapped temporary file."
    )

    @model_validator(mode="after")
    def _alignable(self) -> FitOptions:
        others = {
            "tiles": self.tiles,
            "ignore": self.ignore is not None,
            "evidence student": self.evidence == "student",
        }
        if self.align and (named := [name for name, chosen in others.items() if chosen]):
            raise ValueError(f"fit.align can't be had together with {', '.join(named)}: leave one of them out")
        return self

    @property
    def reading(self) -> Reading:
        """What of it says how images are meant; a version keeps it."""
        return Reading(**self.model_dump(include=set(Reading.model_fields)))


DEFAULT_LEARNING_RATES: dict[Recipe, float] = {"standardised": 0.002, "cosine": 0.005}
