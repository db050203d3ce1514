"""`linewatch plan check`: the simulation beside real runs of the same images on this machine.

A run and its simulation have the same moments of capture, the same partitions and the same settings. Service times are
measured anew in every round, before its runs; and those of the run itself are taken, which a busy machine can't have
changed meanwhile. So each figure has two errors: that of a plan made ahead, and that of the simulation alone.

    engine full     one replica works a backlog off                     images a second
    engine half     sixteen cameras at half of that rate                p50, p99 from capture to committed event
    engine burst    0.4 of it, and twice of it for 4 s                  images behind at most, until they are done
    device half     the same with a device that takes 50 ms an image, and no processor
    device burst
    device death    two such replicas, one of them killed with -9       longest gap of a partition, images behind
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobs.bench.stream import SERVICE_MS, SubjectProcess
from jobs.plan.measure import (
    LEAST_SAMPLES,
    WARM_FETCHES,
    Found,
    MeasureRun,
    measure_round,
    rate_of,
    regular,
    service_times,
    timed_of,
)
from jobs.plan.plant import PARTITIONS, Captures, Committed, Plant
from jobs.plan.simulation import Fault, Line, heartbeat_s, longest_gap_s, most_behind, simulate
from jobs.plan.times import STAGES, ServiceTimes, quantiles
from pipeline.settings import Settings

SEEDS = 9
FULL_S, HALF_S = 10.0, 20.0
CALM, BURST, BURST_AT_S, BURST_S, BURST_RUN_S = 0.4, 2.0, 6.0, 4.0, 20.0
DEATH_LOAD, DEATH_AT_S, DEATH_RUN_S = 0.7, 6.0, 26.0
"""The load is of one replica, for one is left."""
SETTLED_S = 3.0
"""Latencies are of images captured later: the first of each partition are noted at the broker."""
Figures = dict[str, float]
Read = Callable[[np.ndarray, np.ndarray, np.ndarray], Figures]
"""Figures of images by their captures, their commits and their partitions."""
OnStep = Callable[[str], None]


@dataclass
class Compared:
    """One figure of one run in each round: measured; simulated by times measured ahead, and by those of the run."""

    run: str
    figure: str
    measured: list[float] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def errors(self, simulated: Sequence[float]) -> list[float]:
        """As shares of what was measured."""
        return [s / m - 1 for m, s in zip(self.measured, simulated, strict=True)]

    @property
    def error_ahead(self) -> float:
        """The median over the rounds, whatever their signs: errors of two signs are no small error."""
        return statistics.median(map(abs, self.errors(self.ahead)))

    @property
    def error_alone(self) -> float:
        return statistics.median(map(abs, self.errors(self.alone)))

    def as_json(self) -> dict[str, Any]:
        rounded = {name: [round(one, 4) for one in getattr(self, name)] for name in ("measured", "ahead", "alone")}
        errors = {name: round(getattr(self, name), 4) for name in ("error_ahead", "error_alone")}
        return {"run": self.run, "figure": self.figure, **rounded, **errors}


@dataclass(frozen=True, eq=False)
class Ran:
    """A real run; told: what its replica timed; read: the figures that are compared."""

    name: str
    read: Read
    settings: Settings
    committed: Committed
    told: dict[str, Any] | None
    replicas: int = 1
    faults: Sequence[Fault] = ()
    backlog: bool = False


def check(plant: Plant, run: MeasureRun, on_step: OnStep) -> tuple[list[Compared], ServiceTimes]:
    """All rounds; and the engine's service times of all of them together."""
    found: dict[tuple[str, str], Compared] = {}
    everything = Found.nothing()
    for number in range(run.rounds):

        def step(what: str, number: int = number) -> None:
            on_step(f"round {number + 1}: {what}")

        with plant.replica() as engine:
            here = Found.nothing()
            step("service times")
            measure_round(plant, engine, run, here)
            everything.add(here)
            times = service_times(plant, run, here)
            for ran in _runs(plant, engine, here.rate, "engine", step, full=True):
                _compare(found, ran, times)
        with plant.replica(0, SERVICE_MS) as device, plant.replica(1, SERVICE_MS) as second:
            here = Found.nothing()
            step("service times of a simulated device")
            measure_round(plant, device, run, here)
            times = service_times(plant, run, here)
            for ran in _runs(plant, device, here.rate, "device", step):
                _compare(found, ran, times)
            step("device death")
            _compare(found, _death(plant, device, second, here.rate, (number + 0.5) / run.rounds), times)
    return list(found.values()), service_times(plant, run, everything)


def _runs(
    plant: Plant, replica: SubjectProcess, rate: float, name: str, on_step: OnStep, *, full: bool = False
) -> Iterator[Ran]:
    if full:
        on_step(f"{name} full")
        settings = plant.fresh()
        yield Ran(
            f"{name} full", _rate, settings, *plant.backlog(replica, settings, round(rate * FULL_S)), backlog=True
        )
    on_step(f"{name} half")
    settings = plant.fresh()
    yield Ran(f"{name} half", _latency, settings, *plant.paced(replica, settings, regular(rate / 2, HALF_S)))
    on_step(f"{name} burst")
    settings = plant.fresh()
    yield Ran(f"{name} burst", _drain, settings, *plant.paced(replica, settings, _burst(rate)))


def _death(plant: Plant, survivor: SubjectProcess, victim: SubjectProcess, rate: float, phase: float) -> Ran:
    """phase: of the heartbeats, which begin when it joins: deaths at one moment would all be as long after one."""
    settings = plant.fresh()
    at_s = DEATH_AT_S + phase * heartbeat_s(settings.kafka.session_timeout_ms / 1000)
    captures = regular(DEATH_LOAD * rate, DEATH_RUN_S)
    committed = plant.with_a_death([survivor, victim], settings, captures, at_s)
    return Ran("device death", _standstill, settings, committed, None, 2, [Fault(at_s, 1, "dies")])


def _compare(found: dict[tuple[str, str], Compared], ran: Ran, times: ServiceTimes) -> None:
    committed = ran.committed
    begun = committed.captured_s.min()
    measured = ran.read(committed.captured_s - begun, committed.finished_s - begun, committed.partition)
    ahead = _simulated(ran, times)
    alone = _simulated(ran, _of_the_run(times, ran, ran.told)) if ran.told else ahead
    for figure, value in measured.items():
        one = found.setdefault((ran.name, figure), Compared(ran.name, figure))
        one.measured.append(value)
        one.ahead.append(ahead[figure])
        one.alone.append(alone[figure])


def _simulated(ran: Ran, times: ServiceTimes) -> Figures:
    """Medians over some draws of the service times."""
    line = Line(ran.replicas, ran.settings.stream, times.image_bytes, ran.settings.kafka.session_timeout_ms / 1000)
    arrivals = ran.committed.arrivals(PARTITIONS)
    if ran.backlog:  # it lay there before
        arrivals = [np.zeros_like(one) for one in arrivals]
    outcomes = [simulate(times, line, arrivals, ran.faults, seed=seed) for seed in range(SEEDS)]
    found = [ran.read(one.captured_s, one.finished_s, one.partition) for one in outcomes]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _of_the_run(times: ServiceTimes, ran: Ran, told: dict[str, Any]) -> ServiceTimes:
    """With the times of a run itself, where it has any."""
    stages = {stage: timed_of(stage, told["timed"]) or times.stages[stage] for stage in STAGES}
    fetched_s = [] if ran.backlog else told["fetch_s"][WARM_FETCHES:]
    fetch_s = quantiles(fetched_s) if len(fetched_s) >= LEAST_SAMPLES else times.fetch_s
    return times.model_copy(update={"stages": stages, "fetch_s": fetch_s})


def _rate(captured_s: np.ndarray, finished_s: np.ndarray, partition: np.ndarray) -> Figures:  # noqa: ARG001
    return {"images/s": rate_of(finished_s)}


def _latency(captured_s: np.ndarray, finished_s: np.ndarray, partition: np.ndarray) -> Figures:  # noqa: ARG001
    ages = (finished_s - captured_s)[captured_s > SETTLED_S]
    return {"p50 s": float(np.quantile(ages, 0.5)), "p99 s": float(np.quantile(ages, 0.99))}


def _drain(captured_s: np.ndarray, finished_s: np.ndarray, partition: np.ndarray) -> Figures:  # noqa: ARG001
    end_s = BURST_AT_S + BURST_S
    return {
        "most behind": float(most_behind(captured_s, finished_s)),
        "done after s": float(finished_s[captured_s <= end_s].max() - end_s),
    }


def _standstill(captured_s: np.ndarray, finished_s: np.ndarray, partition: np.ndarray) -> Figures:
    gaps = [longest_gap_s(captured_s[partition == one], finished_s[partition == one]) for one in np.unique(partition)]
    return {"longest gap s": max(gaps), "most behind": float(most_behind(captured_s, finished_s))}


def _burst(rate: float) -> Captures:
    return sorted([*regular(CALM * rate, BURST_RUN_S), *regular((BURST - CALM) * rate, BURST_S, BURST_AT_S)])
