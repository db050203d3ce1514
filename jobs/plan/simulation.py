"""A discrete-event simulation of a line: replicas, their partitions, and what befalls them. Seconds throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simpy

from jobs.plan.arrivals import ARRIVALS
from jobs.plan.replica import Draw, Partition, Replica
from jobs.plan.times import POINTS, STAGES, ServiceTimes, Stage
from pipeline.settings import Stream

OnProgress = Callable[[int, int], None]
LOOK_S = 1.0
"""Simulated seconds between two reports of progress."""
DRAIN_S = 600.0
"""What is not finished so long after the last image came is told as unfinished."""


@dataclass(frozen=True)
class Fault:
    """``dies`` (kill -9) or ``leaves`` (finishes, then goes). back_after_s: until its successor joins, from then on."""

    at_s: float
    replica: int
    kind: Literal["dies", "leaves"]
    back_after_s: float = math.inf


@dataclass(frozen=True)
class Line:
    """rebalance_s: from the group's learning of a member's end, or of a successor, to partitions in new hands.

    A session ends so long after a member's last heartbeat, and the others learn of it by their next.
    """

    replicas: int
    stream: Stream
    message_bytes: int
    session_timeout_s: float = 6.0
    rebalance_s: float = 0.3

    @property
    def heartbeat_s(self) -> float:
        return heartbeat_s(self.session_timeout_s)


def heartbeat_s(session_timeout_s: float) -> float:
    """From one heartbeat of a member to the next, as `pipeline/kafka/membership.py` sets it."""
    return max(0.3, session_timeout_s / 6)


@dataclass(frozen=True, eq=False)
class Outcome:
    """captured_s, finished_s: of each image, in no order; what was not finished has no number (NaN).

    busy: share of the time that each replica's stages were at work, `[R]` each.
    """

    captured_s: np.ndarray
    finished_s: np.ndarray
    partition: np.ndarray
    busy: dict[Stage, np.ndarray]

    @property
    def unfinished(self) -> int:
        return int(np.isnan(self.finished_s).sum())

    def latency_s(self, quantile: float, since_s: float = 0.0) -> float:
        """From capture to committed event, of images captured from then on; infinite where some never came."""
        ages = (self.finished_s - self.captured_s)[self.captured_s >= since_s]
        return float(np.quantile(np.where(np.isnan(ages), np.inf, ages), quantile, method="lower"))

    @property
    def most_behind(self) -> int:
        """Images captured and not committed, at the worst moment."""
        return most_behind(self.captured_s, self.finished_s)

    @property
    def longest_gap_s(self) -> float:
        """The longest time in which a partition with images waiting saw no commit."""
        return max(
            (longest_gap_s(self.captured_s[mine], self.finished_s[mine]) for mine in self._partitions()), default=0.0
        )

    def _partitions(self) -> list[np.ndarray]:
        return [self.partition == number for number in np.unique(self.partition)]


def simulate(
    times: ServiceTimes,
    line: Line,
    arrivals: ARRIVALS,
    faults: Sequence[Fault] = (),
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Let images come on their partitions, which are dealt out to the replicas in turn, and see when they are done."""
    rng = np.random.default_rng(seed)
    env = simpy.Environment()
    partitions = [_partition(number, captured, times, rng) for number, captured in enumerate(arrivals)]
    total = sum(len(one.captured_s) for one in partitions)
    left, done = total, env.event()

    def on_finished(images: int) -> None:
        nonlocal left
        left -= images
        if left == 0:
            done.succeed()

    group = Group(env, line, drawing(times, rng), on_finished, rng)
    for number, one in enumerate(partitions):
        group.members[number % line.replicas].assign([one])
    for fault in faults:
        env.process(group.suffer(fault))
    last_s = max((float(one.captured_s[-1]) for one in partitions if len(one.captured_s)), default=0.0)
    while left and env.now < last_s + DRAIN_S:
        env.run(until=simpy.AnyOf(env, [done, env.timeout(LOOK_S)]))
        if on_progress:
            on_progress(total - left, total)
    elapsed = max(env.now, 1e-9)
    return Outcome(
        np.concatenate([one.captured_s for one in partitions]),
        np.concatenate([one.finished_s for one in partitions]),
        np.concatenate([np.full(len(one.captured_s), one.number) for one in partitions]),
        {stage: np.array([member.busy_s[stage] / elapsed for member in group.members]) for stage in STAGES},
    )


class Group:
    """The consumer group: who has which partitions, as members come and go."""

    def __init__(
        self,
        env: simpy.Environment,
        line: Line,
        draw: Draw,
        on_finished: Callable[[int], None],
        rng: np.random.Generator,
    ) -> None:
        self._env, self._line, self._draw, self._on_finished, self._rng = env, line, draw, on_finished, rng
        self._unheld: list[Partition] = []
        self.members = [self._member() for _ in range(line.replicas)]

    def suffer(self, fault: Fault) -> simpy.events.ProcessGenerator:
        yield self._env.timeout(fault.at_s)
        member = self.members[fault.replica]
        if fault.kind == "dies":
            member.die()
            self._env.process(self._successor(fault))
            since_heartbeat_s, until_next_s = self._rng.uniform(0, self._line.heartbeat_s, 2)
            yield self._env.timeout(max(0.0, self._line.session_timeout_s - since_heartbeat_s + until_next_s))
        else:
            member.stop()
            yield member.ended
            member.die()
            self._env.process(self._successor(fault))
        yield self._env.timeout(self._line.rebalance_s)
        orphans = list(member.partitions)
        member.revoke(orphans)
        self._unheld += orphans
        self._share_out()

    def _successor(self, fault: Fault) -> simpy.events.ProcessGenerator:
        if math.isinf(fault.back_after_s):
            return
        yield self._env.timeout(fault.back_after_s)
        old, new = self.members[fault.replica], self._member()
        for stage, seconds in old.busy_s.items():
            new.busy_s[stage] += seconds
        if old.partitions:  # nobody had noticed yet: the session is not over
            orphans = list(old.partitions)
            old.revoke(orphans)
            self._unheld += orphans
        self.members[fault.replica] = new
        yield self._env.timeout(self._line.rebalance_s)
        self._share_out()

    def _share_out(self) -> None:
        """As cooperative-sticky does: what nobody has goes to those that have least; then the richest give."""
        alive = [member for member in self.members if member.alive and not member.stopping]
        if not alive:
            return
        for one in self._unheld:
            min(alive, key=lambda member: len(member.partitions)).assign([one])
        self._unheld = []
        while True:
            poor, rich = (pick(alive, key=lambda member: len(member.partitions)) for pick in (min, max))
            if len(rich.partitions) - len(poor.partitions) < 2:
                return
            moved = rich.partitions[-1]
            rich.revoke([moved])
            poor.assign([moved])

    def _member(self) -> Replica:
        return Replica(self._env, self._line.stream, self._line.message_bytes, self._draw, self._on_finished)


def drawing(times: ServiceTimes, rng: np.random.Generator) -> Draw:
    """Seconds of a stage for so many images, drawn from what was measured."""
    known: dict[tuple[Stage, int], np.ndarray] = {}

    def draw(stage: Stage, images: int) -> float:
        found = known.get((stage, images))
        if found is None:
            found = known[stage, images] = times.quantiles_of(stage, images)
        return float(np.interp(rng.random(), POINTS, found))

    return draw


def most_behind(captured_s: np.ndarray, finished_s: np.ndarray) -> int:
    came, went = np.sort(captured_s), np.sort(finished_s[~np.isnan(finished_s)])
    return int((np.arange(1, len(came) + 1) - np.searchsorted(went, came, side="right")).max(initial=0))


def longest_gap_s(captured_s: np.ndarray, finished_s: np.ndarray) -> float:
    """Of one partition: the longest time without a commit while something captured was not committed."""
    order = np.argsort(captured_s, kind="stable")
    came, went = captured_s[order], finished_s[order]
    # Between two commits something waits from the first capture on that the later commit has.
    waits = np.maximum(came, np.concatenate([[-np.inf], np.fmax.accumulate(went)[:-1]]))
    gaps = np.where(np.isnan(went), np.inf, went - waits)
    return float(gaps.max(initial=0.0))


def _partition(number: int, captured_s: np.ndarray, times: ServiceTimes, rng: np.random.Generator) -> Partition:
    fetched = captured_s + np.interp(rng.random(len(captured_s)), POINTS, times.fetch_s)
    # A partition is read in order.
    return Partition(number, captured_s, np.maximum.accumulate(fetched), np.full(len(captured_s), np.nan))
