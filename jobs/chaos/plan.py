"""What is done to whom, and when: decided by a seed before anything runs."""

import heapq
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["replica", "stopped", "broker", "store", "node", "cut", "split"]

INTERVALS_S: dict[Kind, float] = {
    "replica": 20.0,
    "stopped": 90.0,
    "broker": 120.0,
    "store": 120.0,
    "node": 180.0,
    "cut": 0.0,
    "split": 0.0,
}
"""A replica is killed, or stopped past its session and continued; a broker, the S3 server, a whole node are killed.

On hosts with cables, one is cut off and connected again, or the servers are cut off from all: never, unless asked for.
"""
_JITTER = 0.2


@dataclass(frozen=True, order=True)
class Fault:
    """at_s: seconds after the start. pick: which one of those that there are then, from 0 up to but not 1."""

    at_s: float
    kind: Kind
    pick: float


def plan(seed: int, intervals_s: Mapping[Kind, float]) -> Iterator[Fault]:
    """Endless, in order of time; an interval of 0 leaves that kind out.

    Kinds have random numbers of their own: leaving one out does not move the others.
    """
    return heapq.merge(*(_of(kind, every_s, seed) for kind, every_s in intervals_s.items() if every_s > 0))


def _of(kind: Kind, every_s: float, seed: int) -> Iterator[Fault]:
    rng = random.Random(f"{seed} {kind}")
    for number in itertools.count(1):
        yield Fault(every_s * (number + rng.uniform(-_JITTER, _JITTER)), kind, rng.random())
