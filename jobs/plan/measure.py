"""`linewatch plan measure`: service times of a replica's real worker on this machine.

Stages take from each other what the processor has, so batches of each size are timed at the load that makes them: few
images while a camera sends at a third of what the replica can do, some at five sixths of it, 16 and 32 of a backlog.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jobs.bench.stream import SubjectProcess
from jobs.plan.arrivals import even_cameras
from jobs.plan.plant import PARTITIONS, Captures, Plant
from jobs.plan.times import STAGES, FitCost, ServiceTimes, SizeCost, Stage, Timed, quantiles
from model import FitOptions, Scored, encode_mask_png
from model.bench.engine import gflop_per_image
from model.bench.machine import describe_machine, versions
from model.bench.subject import drawn_photographs
from model.bench.train import measure_fit
from model.engine.engine import Engine
from model.images.frames import read_frame
from model.verdict.masks import cut
from pipeline.errors import ServingError

BACKLOG_BATCHES = (16, 32)
LOADS = (1 / 3, 5 / 6)
CAMERAS = even_cameras(PARTITIONS, 2)
FIRST_RATE = 25.0
"""Images a second that are guessed before any was measured."""
BUCKETS = (1, 4, 16, 32, 64, 128, 256, 512)
LEAST_SAMPLES = 5
WARM = 2
"""The first of each stage in a run are left out."""
WARM_FETCHES = 8
"""While a replica joins, images wait; and the first of each partition gets a note at the broker."""
SIDES_PX = (256, 512, 1024, 2048)
BYTES, BYTES_IMAGES = (60_000, 600_000), (2_000, 400)
FIT_IMAGES, FIT_STEPS = 16, 12
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class MeasureRun:
    """seconds: of each load in each round."""

    backbone: str = "efficientnet_lite0"
    threads: int = 1
    rounds: int = 3
    seconds: float = 5.0
    command: str = "linewatch plan measure"
    device: str = "cpu"


@dataclass
class Found:
    """What rounds have timed; rates: images a second of all batch sizes."""

    timed: list[tuple[str, int, float]]
    fetch_s: list[float]
    told: list[dict[str, Any]]
    rates: dict[int, list[float]]

    @classmethod
    def nothing(cls) -> Found:
        return cls([], [], [], {})

    def note(self, told: dict[str, Any], *, backlog: bool = False) -> None:
        """backlog: its images had waited for the replica, and tell nothing of a fetch."""
        self.told.append(told)
        if not backlog:
            self.fetch_s += told["fetch_s"][WARM_FETCHES:]
        for stage in STAGES:
            self.timed += [(name, images, seconds) for name, images, seconds in told["timed"] if name == stage][WARM:]

    def add(self, other: Found) -> None:
        self.timed += other.timed
        self.fetch_s += other.fetch_s
        self.told += other.told
        for batch, rates in other.rates.items():
            self.rates.setdefault(batch, []).extend(rates)

    @property
    def rate(self) -> float:
        """Images a second at the largest batches of the default settings."""
        return statistics.median(self.rates[16])


def measure_round(plant: Plant, replica: SubjectProcess, run: MeasureRun, found: Found) -> None:
    """One more round of all loads. The settings' own batches, but for the largest."""
    guess = found.rate if found.rates else FIRST_RATE
    for batch in BACKLOG_BATCHES:
        images = max((WARM + LEAST_SAMPLES) * batch, round(guess * run.seconds))
        committed, told = plant.backlog(replica, plant.fresh(batch_images=batch), images)
        found.note(told, backlog=True)
        found.rates.setdefault(batch, []).append(rate_of(committed.finished_s))
    for load in LOADS:
        _, told = plant.paced(replica, plant.fresh(), regular(load * found.rate, run.seconds))
        found.note(told)


def regular(per_s: float, seconds: float, begin_s: float = 0.0) -> Captures:
    """Cameras that send in turn."""
    return [(begin_s + number / per_s, CAMERAS[number % len(CAMERAS)]) for number in range(round(per_s * seconds) or 1)]


def rate_of(finished_s: Sequence[float] | Any) -> float:
    """Images a second from the first commit to the last."""
    first, last = min(finished_s), max(finished_s)
    return float(sum(one > first for one in finished_s) / (last - first)) if last > first else 0.0


def service_times(plant: Plant, run: MeasureRun, found: Found) -> ServiceTimes:
    """What was found, as a file keeps it. Raises ServingError: nothing was."""
    missing = [stage for stage in STAGES if not any(name == stage for name, _, _ in found.timed)]
    if missing or not found.fetch_s:
        raise ServingError(f"too few images to time {', '.join(missing) or 'a fetch'}: measure for more --seconds")
    return ServiceTimes(
        kind=run.device,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=run.command,
        machine=describe_machine(),
        versions=versions(),
        backbone=run.backbone,
        threads=run.threads,
        image_bytes=round(statistics.fmean(map(len, plant.product.jpegs))),
        mask_bytes=round(statistics.fmean(one["mask_bytes"] for one in found.told)),
        event_bytes=round(statistics.fmean(one["event_bytes"] for one in found.told)),
        cpu_s_per_image=round(statistics.median(one["cpu_s_per_image"] for one in found.told), 5),
        fetch_s=quantiles(found.fetch_s),
        stages={stage: timed_of(stage, found.timed) for stage in STAGES},
    )


def with_what_is_measured_alone(times: ServiceTimes, plant: Plant) -> ServiceTimes:
    """Images of other sizes, a fit, and the operations of an image: each by itself, for the replica need not run."""
    return times.model_copy(
        update={
            "by_size": tuple(_sizes(plant)),
            "byte_s": _byte_s(plant),
            "fit": _fit(times.backbone, times.kind),
            "gflop_per_image": gflop_per_image(plant.product),
        }
    )


def timed_of(stage: Stage, timed: Iterable[tuple[str, int, float]]) -> tuple[Timed, ...]:
    """By the nearest of the sizes; one that came up too seldom is left out, and nothing is left of nothing."""
    buckets: dict[int, list[tuple[int, float]]] = {}
    for name, images, seconds in timed:
        if name == stage:
            nearest = min(BUCKETS, key=lambda size: abs(size - images) / size)
            buckets.setdefault(nearest, []).append((images, seconds))
    enough = {size: pairs for size, pairs in sorted(buckets.items()) if len(pairs) >= LEAST_SAMPLES}
    kept = enough or dict(sorted(buckets.items(), key=lambda one: len(one[1]))[-1:])
    return tuple(
        Timed.of(round(statistics.fmean(images for images, _ in pairs), 2), [seconds for _, seconds in pairs])
        for pairs in kept.values()
    )


def _sizes(plant: Plant) -> list[SizeCost]:
    bundle, size = plant.product.bundle, plant.product.bundle.manifest.preprocessing.size
    engine = Engine(lambda _: bundle, device="cpu", threads=1)
    found = []
    for side in SIDES_PX:
        (jpeg,) = drawn_photographs(1, side, defective_every=1)
        (scored,) = engine.score([read_frame(jpeg, size)], ["bench"])
        found.append(
            SizeCost(
                side_px=side,
                image_bytes=len(jpeg),
                read_s=_median_s(partial(bundle.manifest.read, jpeg)),
                cut_s=_median_s(partial(_cut, scored)),
            )
        )
    return found


def _cut(scored: Scored) -> bytes:
    return encode_mask_png(cut(scored).mask)


def _byte_s(plant: Plant) -> float:
    """By two sizes of messages and a device that takes no time."""
    image_s = []
    with plant.replica(0, 0.0) as replica:
        for size, images in zip(BYTES, BYTES_IMAGES, strict=True):
            rates = []
            for _ in range(3):
                committed, _ = plant.backlog(replica, plant.fresh(), images, [bytes(size)])
                rates.append(rate_of(committed.finished_s))
            image_s.append(1 / statistics.median(rates))
    return round(max(0.0, (image_s[1] - image_s[0]) / (BYTES[1] - BYTES[0])), 12)


def _median_s(work: Callable[[], object], repeats: int = 15) -> float:
    """Of the processor, whatever else runs on it."""
    seconds = []
    for _ in range(repeats):
        begun = time.thread_time()
        work()
        seconds.append(time.thread_time() - begun)
    return round(statistics.median(seconds), 6)


def _fit(backbone: str, device: str) -> FitCost:
    """By a few images and steps: the rest of a fit is more of the same."""
    options = FitOptions(backbone=backbone, steps=FIT_STEPS)
    frames = [read_frame(data, options.size) for data in drawn_photographs(FIT_IMAGES, seed=2)]
    found = measure_fit(frames, options, device)
    return FitCost(image_s=round(found.features_s / FIT_IMAGES, 5), step_s=round(statistics.median(found.steps_s), 5))
