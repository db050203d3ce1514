"""Seconds of a fit, its pass of the teacher counted in, step by step."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model.fitting.options import FitOptions
from model.fitting.training import Fit, StepReport
from model.images.frames import Frame
from model.verdict.calibration import LEAST_HELD_OUT

LAST = 5
"""Steps whose mean loss is compared: a single step's loss depends on its batch."""


@dataclass
class StepTimes:
    """features_s: the teacher's pass over all images; steps_s and losses: of each step."""

    features_s: float = 0.0
    steps_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        total = self.features_s + sum(self.steps_s)
        return {
            "seconds_total": round(total, 4),
            "seconds_features": round(self.features_s, 4),
            "seconds_per_step": round(total / len(self.steps_s), 4),
            "seconds_of_a_step_alone": round(statistics.median(self.steps_s), 4),
            "final_loss": round(self.losses[-1], 5),
            "loss_mean_of_last_steps": round(statistics.fmean(self.losses[-LAST:]), 5),
            "losses": [round(loss, 5) for loss in self.losses],
        }


def measure_fit(
    frames: Sequence[Frame],
    options: FitOptions,
    device: str = "cpu",
    after_step: Callable[[int], None] | None = None,
    on_features: Callable[[int, int], None] | None = None,
) -> StepTimes:
    """A whole fit on the frames. What `after_step(steps done)` does is not on the clock: there the peer takes its step.

    Starts with decoded frames and a loaded teacher; ends with the last step, before calibration. Raises ModelError.
    """
    times = StepTimes()
    fit = Fit("bench", frames, frames[:LEAST_HELD_OUT], options, device)
    last = time.perf_counter()

    def on_step(report: StepReport) -> None:
        nonlocal last
        spent = time.perf_counter() - last
        if report.phase == "features":
            times.features_s += spent
            if on_features:
                on_features(report.step, report.steps)
        elif report.phase == "training":
            times.steps_s.append(spent)
            times.losses.append(report.loss)
            if after_step:
                after_step(report.step)
        last = time.perf_counter()

    fit.run(on_step)
    assert len(times.steps_s) == options.steps
    assert all(map(math.isfinite, times.losses))
    return times
