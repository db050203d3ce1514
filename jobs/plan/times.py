"""Service times of one replica: how long each of its stages takes for so many images, measured; a JSON file.

They are measured on the real worker while all of its stages are at work (`jobs/plan/measure.py`), so what the stages
take from each other, on the processor and in Python, is in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import SettingsError

Stage = Literal["poll", "prepare", "score", "cut", "commit"]
STAGES: tuple[Stage, ...] = ("poll", "prepare", "score", "cut", "commit")
PIPELINE: tuple[Stage, ...] = ("prepare", "score", "cut")
"""They have a thread each; poll and commit share the worker's."""
POINTS = (*(round(0.05 * n, 2) for n in range(20)), 0.99, 1.0)
"""A distribution is kept as its quantiles at these."""
SHIPPED = Path(__file__).parent / "measured"


class Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Timed(Told):
    """images: in a batch, a poll or a transaction. quantiles: of its seconds, at `POINTS`."""

    images: float = Field(gt=0)
    samples: int = Field(ge=1)
    quantiles: tuple[float, ...] = Field(min_length=len(POINTS), max_length=len(POINTS))

    @classmethod
    def of(cls, images: float, seconds: Sequence[float]) -> Timed:
        return cls(images=images, samples=len(seconds), quantiles=quantiles(seconds))


class SizeCost(Told):
    """Of an image of a size, alone: processor seconds to decode it, and to cut its mask and encode that."""

    side_px: int = Field(ge=1)
    image_bytes: int = Field(ge=1)
    read_s: float = Field(gt=0)
    cut_s: float = Field(gt=0)


class FitCost(Told):
    """image_s: for each image before the first step. step_s: a step of 16 images; corruptions as in a default fit."""

    image_s: float = Field(ge=0)
    step_s: float = Field(gt=0)


class ServiceTimes(Told):
    """Of one replica. kind: `cpu` or `cuda` as measured, or a GPU's name.

    fetch_s: quantiles from capture to a waiting worker's hands.
    cpu_s_per_image: processor seconds of the replica's process. mask_bytes, event_bytes: of a message, mean.
    byte_s: what each byte of an image takes to be fetched and polled.
    """

    kind: str = Field(min_length=1)
    date: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]
    backbone: str
    threads: int = Field(ge=1)
    image_bytes: int = Field(ge=1)
    mask_bytes: int = Field(ge=0)
    event_bytes: int = Field(ge=0)
    cpu_s_per_image: float = Field(gt=0)
    byte_s: float = Field(0.0, ge=0)
    gflop_per_image: float | None = None
    fetch_s: tuple[float, ...] = Field(min_length=len(POINTS), max_length=len(POINTS))
    stages: dict[Stage, tuple[Timed, ...]]
    by_size: tuple[SizeCost, ...] = ()
    fit: FitCost | None = None
    assumed: str = ""
    """What of it was not measured; nothing where all was."""

    @model_validator(mode="after")
    def _whole(self) -> ServiceTimes:
        for stage in STAGES:
            if not self.stages.get(stage):
                raise ValueError(f"stages has no times of {stage!r}")
            sizes = [one.images for one in self.stages[stage]]
            if sizes != sorted(set(sizes)):
                raise ValueError(f"stages.{stage}: sizes of batches must rise")
        return self

    @property
    def where(self) -> str:
        """The machine in words."""
        machine = self.machine
        return f"{machine.get('gpu') or machine.get('processor')}, {machine.get('cores')} cores, {self.date[:10]}"

    def quantiles_of(self, stage: Stage, images: float) -> np.ndarray:
        """Seconds at `POINTS`, between measured sizes by a straight line, beyond the largest along the last one."""
        measured = self.stages[stage]
        if len(measured) == 1 or images <= measured[0].images:
            return np.array(measured[0].quantiles)
        above = next((n for n, one in enumerate(measured) if one.images >= images), len(measured) - 1)
        low, high = measured[above - 1], measured[above]
        share = (images - low.images) / (high.images - low.images)
        # A line that falls is noise, and beyond the largest size it would end below nothing.
        rise = np.asarray(high.quantiles) - np.asarray(low.quantiles)
        beyond = max(0.0, share - 1) * np.maximum(rise, 0.0)
        found: np.ndarray = np.asarray(low.quantiles) + min(share, 1.0) * rise + beyond
        return found

    def mean_s(self, stage: Stage, images: float) -> float:
        return float(np.trapezoid(self.quantiles_of(stage, images), POINTS))

    def busy_s(self, batch: int, transaction: int) -> dict[str, float]:
        """Seconds an image takes of each thing a replica has one of, in batches and transactions of these sizes."""
        found: dict[str, float] = {stage: self.mean_s(stage, batch) / batch for stage in PIPELINE}
        worker = self.mean_s("poll", batch) / batch + self.mean_s("commit", transaction) / transaction
        return {**found, "poll and commit": worker}

    def scaled(self, stage_factors: Mapping[Stage, float], more_s: Mapping[Stage, float] | None = None) -> ServiceTimes:
        """The same with stages that take so many times as long, and so many seconds more for each image."""
        stages: dict[Stage, tuple[Timed, ...]] = {}
        for stage, measured in self.stages.items():
            factor, more = stage_factors.get(stage, 1.0), (more_s or {}).get(stage, 0.0)
            stages[stage] = tuple(
                one.model_copy(update={"quantiles": tuple(factor * q + more * one.images for q in one.quantiles)})
                for one in measured
            )
        return self.model_copy(update={"stages": stages})

    def size_factors(self, image_bytes: int) -> tuple[float, float]:
        """How many times as long as the measured images such ones take to decode, and to cut; 1 where none is known."""
        (read, cut), (read_here, cut_here) = self._costs(image_bytes), self._costs(self.image_bytes)
        return read / read_here, cut / cut_here

    def more_cpu_s(self, image_bytes: int) -> float:
        """Processor seconds that such an image takes more than a measured one."""
        return sum(self._costs(image_bytes)) - sum(self._costs(self.image_bytes))

    def _costs(self, image_bytes: int) -> tuple[float, float]:
        """Seconds to decode and to cut; the same for all where they were not measured."""
        if len(self.by_size) < 2:
            return 1.0, 1.0
        ordered = sorted(self.by_size, key=lambda one: one.image_bytes)
        sizes = [one.image_bytes for one in ordered]

        def at(size: int, seconds: list[float]) -> float:
            if size <= sizes[-1]:
                return float(np.interp(size, sizes, seconds))
            return seconds[-1] + (size - sizes[-1]) * max(0.0, seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])

        return at(image_bytes, [one.read_s for one in ordered]), at(image_bytes, [one.cut_s for one in ordered])


def quantiles(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(one), 6) for one in np.quantile(seconds, POINTS))


def read_times(file: Path) -> ServiceTimes:
    """Raises SettingsError: no such file, or not one of service times."""
    try:
        return ServiceTimes.model_validate(json.loads(file.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    except json.JSONDecodeError:
        raise SettingsError(f"{file} is not JSON: `linewatch plan measure --json FILE` writes such a file") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise SettingsError(
            f"{file} has no service times as `linewatch plan measure` writes them: {place}: {first['msg']}"
        ) from None


def shipped_times(kind: str) -> ServiceTimes | None:
    """Those that linewatch ships for ``cpu`` or a GPU; none where nobody has measured them."""
    file = SHIPPED / f"{kind}.json"
    return read_times(file) if file.is_file() else None
