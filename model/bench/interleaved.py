"""Repeats of several modes in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Run = Callable[[int], float]
"""Do this many batches; returns the seconds they took."""

OnRepeat = Callable[[int, int], None]
"""Repeats done, and of how many."""


@dataclass(frozen=True)
class Rates:
    """Images per second of each repeat, in the order measured."""

    repeats: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.repeats)

    def as_json(self) -> dict[str, object]:
        return {"median": round(self.median, 3), "repeats": [round(rate, 3) for rate in self.repeats]}


def interleaved(
    modes: Mapping[str, Run], batch: int, *, repeats: int, seconds: float, on_repeat: OnRepeat | None = None
) -> dict[str, Rates]:
    """Images per second of each mode, a repeat of each in turn; every second round goes through them backwards.

    A repeat of any mode takes about `seconds`, and at least one batch. What a first batch costs (compiled kernels,
    allocated memory) is paid before the clock starts.
    """
    batches = {name: _batches_within(run, seconds) for name, run in modes.items()}
    measured: dict[str, list[float]] = {name: [] for name in modes}
    done = 0
    for number in range(repeats):
        for name in list(modes) if number % 2 == 0 else reversed(list(modes)):
            took = modes[name](batches[name])
            measured[name].append(batches[name] * batch / took)
            done += 1
            if on_repeat:
                on_repeat(done, repeats * len(modes))
    return {name: Rates(tuple(rates)) for name, rates in measured.items()}


def ratio(above: Rates, below: Rates) -> float:
    """Median of the ratios of neighbouring repeats: they shared the machine's moods."""
    pairs = zip(above.repeats, below.repeats, strict=True)
    return round(statistics.median(one / other for one, other in pairs), 3)


def _batches_within(run: Run, seconds: float) -> int:
    run(1)
    return max(1, round(seconds / max(run(1), 1e-6)))
