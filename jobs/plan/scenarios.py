"""What a planned line goes through in simulation: calm, a burst, a death, a rolling upgrade.

Replicas have nothing of each other's but partitions, so of many some are simulated: the one with the most cameras, and
others drawn at random. Figures are of these, and so on the safe side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jobs.plan.arrivals import steady, with_burst
from jobs.plan.assumptions import Assumptions
from jobs.plan.needs import Needs, loads, of_replicas
from jobs.plan.simulation import Fault, Line, Outcome, simulate
from pipeline.settings import Settings

MOST_SIMULATED = 12
MOST_IMAGES = 60_000
"""Of one scenario: at more it has fewer replicas."""
FEWEST_SIMULATED = 3
CALM_S, FAULT_AT_S, AFTER_S = 40.0, 10.0, 40.0
ROLLED = 3
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Seen:
    """Of one scenario. most_behind: images of the simulated replicas. drained_s: from a burst's end until all that came
    by then was committed; none where there was no burst.
    """

    scenario: str
    images: int
    p50_s: float
    p99_s: float
    longest_gap_s: float
    most_behind: int
    drained_s: float | None
    unfinished: int

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Sample:
    """Some replicas of a group with their partitions, dealt out in turn. on: cameras of each partition."""

    replicas: int
    on: np.ndarray


def sample(plan: Needs, assumed: Assumptions, most: int = MOST_SIMULATED, seed: int = 0) -> Sample:
    each = plan.replicas_in_a_group
    on = loads(plan.cameras_in_a_group, plan.partitions, assumed.placement)
    hottest = int(of_replicas(on, each).argmax())
    others = np.random.default_rng(seed).permutation([one for one in range(each) if one != hottest])
    chosen = np.array([hottest, *others[: most - 1]], dtype=int)
    places = range(0, plan.partitions, each)
    return Sample(
        len(chosen), np.concatenate([on[(chosen + place)[chosen + place < plan.partitions]] for place in places])
    )


def calm(plan: Needs, settings: Settings, assumed: Assumptions, on_progress: OnProgress | None = None) -> Seen:
    """Steady cameras alone."""
    return _see("calm", plan, settings, assumed, on_progress)


def all_of_them(
    plan: Needs, settings: Settings, assumed: Assumptions, on_progress: OnProgress | None = None
) -> list[Seen]:
    return [_see(name, plan, settings, assumed, on_progress) for name in ("calm", "burst", "death", "roll")]


def _see(name: str, plan: Needs, settings: Settings, assumed: Assumptions, on_progress: OnProgress | None) -> Seen:
    some = sample(plan, assumed, _most_simulated(plan))
    rng = np.random.default_rng(1)
    lasts_s = CALM_S if name == "calm" else FAULT_AT_S + assumed.successor_s + AFTER_S
    burst = (FAULT_AT_S, assumed.burst_s, assumed.burst if name == "burst" else 1.0)
    arrivals = (
        with_burst(some.on, plan.demand.fps, lasts_s, burst, rng)
        if name == "burst"
        else steady(some.on, plan.demand.fps, lasts_s, rng)
    )
    faults: list[Fault] = []
    if name == "death":
        faults = [Fault(FAULT_AT_S, 0, "dies", assumed.successor_s)]
    elif name == "roll":
        apart_s = assumed.successor_s + 2 * assumed.rebalance_s
        faults = [
            Fault(FAULT_AT_S + number * apart_s, number, "leaves", assumed.successor_s)
            for number in range(min(ROLLED, some.replicas))
        ]
    line = Line(
        some.replicas,
        settings.stream,
        plan.message_bytes,
        settings.kafka.session_timeout_ms / 1000,
        assumed.rebalance_s,
    )
    outcome = simulate(
        plan.times, line, arrivals, faults,
        on_progress=(lambda done, of: on_progress(name, done, of)) if on_progress else None,
    )  # fmt: skip
    return _seen(name, outcome, FAULT_AT_S + assumed.burst_s if name == "burst" else None)


def _most_simulated(plan: Needs) -> int:
    images = plan.images_per_s / plan.replicas * (FAULT_AT_S + AFTER_S)
    return max(FEWEST_SIMULATED, min(MOST_SIMULATED, int(MOST_IMAGES / images)))


def _seen(name: str, outcome: Outcome, burst_end_s: float | None) -> Seen:
    drained = None
    if burst_end_s is not None:
        drained = (
            float(np.nanmax(outcome.finished_s[outcome.captured_s <= burst_end_s], initial=burst_end_s)) - burst_end_s
        )
    return Seen(
        name,
        len(outcome.captured_s),
        outcome.latency_s(0.5),
        outcome.latency_s(0.99),
        outcome.longest_gap_s,
        outcome.most_behind,
        drained,
        outcome.unfinished,
    )
