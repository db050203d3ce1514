"""How many replicas the stream needs: from what waits on Kafka, and whether that grows.

Serve asks `LagPolicy` about every tenth of a second, and adds the delays of `serving.upscale_delay_s` and
`serving.downscale_delay_s` to what it says. The policy runs in Serve's controller, so it imports nothing of linewatch.

    arriving     what is done per second, and the trend of the lag
    needed       replicas for what arrives, and for the lag within `drain_s`, at what a busy replica does per second

What a busy replica does per second is learned while there is a lag; before that, a lag asks for one replica more, and
what any has done at all says when fewer are enough: a short burst may teach no more than that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HEADROOM = 1.25
"""Fewer replicas are wanted only where they had this much to spare: or the first burst brings them back."""
TREND_S = 5.0
FORGET_PER_S = 0.002
"""A busy replica's rate is the highest seen, slowly forgotten: another product may be slower."""


@dataclass(frozen=True)
class Load:
    """Of one replica: messages behind its committed offsets, and images that it commits per second."""

    lag: float
    images_per_s: float


@dataclass(frozen=True)
class Memory:
    """What is known from the last look. capacity: images per second of a busy replica, 0 where unknown. seen: the most
    that any did, busy or not: it can do as much at least.
    """

    at_s: float
    lag: float
    trend_per_s: float = 0.0
    capacity: float = 0.0
    seen: float = 0.0


def wanted_replicas(
    loads: Sequence[Load], memory: Memory | None, now_s: float, current: int, drain_s: float
) -> tuple[int, Memory]:
    """How many replicas the load wants, at least 1, before any limits and delays; and what to remember."""
    lag, rate = sum(load.lag for load in loads), sum(load.images_per_s for load in loads)
    memory = memory or Memory(now_s, lag)
    passed_s = max(0.0, now_s - memory.at_s)
    trend = memory.trend_per_s
    if passed_s > 0:
        weight = 1 - math.exp(-passed_s / TREND_S)
        trend += weight * ((lag - memory.lag) / passed_s - trend)
    busy = [load.images_per_s for load in loads if load.lag > load.images_per_s > 0]  # more than a second behind
    kept = max(0.0, 1 - FORGET_PER_S * passed_s)
    capacity = max([memory.capacity * kept, *busy])
    seen = max([memory.seen * kept, *(load.images_per_s for load in loads)])
    remembered = Memory(now_s, lag, trend, capacity, seen)
    if not loads:
        return current, remembered
    arriving = max(0.0, rate + trend)
    if capacity <= 0:
        if lag > 0:
            return current + 1, remembered
        enough = math.ceil(HEADROOM * arriving / seen) if seen > 0 else 1
        return max(1, min(current, enough)), remembered
    needed = math.ceil((arriving + lag / drain_s) / capacity)
    if needed >= current:
        return max(1, needed), remembered
    return max(1, min(current, math.ceil(HEADROOM * (arriving + lag / drain_s) / capacity))), remembered


class LagPolicy:
    """Serve's policy: `policy_function` is this class, `policy_kwargs` its arguments. Metrics: see `metrics_of`."""

    def __init__(self, drain_s: float, partitions: int) -> None:
        """drain_s: a lag shall be gone after so long. partitions: more replicas than these would be idle."""
        self._drain_s, self._partitions = drain_s, partitions
        self._memory: Memory | None = None

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        metrics = context.raw_metrics or {}
        lags, rates = (metrics.get(name) or {} for name in ("lag", "images_per_s"))
        loads = [Load(latest(lags[one]), latest(rates[one])) for one in lags if one in rates]
        wanted, self._memory = wanted_replicas(
            loads, self._memory, context.current_time, context.target_num_replicas, self._drain_s
        )
        return min(wanted, self._partitions), {}


def latest(series: Sequence[Any]) -> float:
    """The last value of Serve's time series; 0 where there is none yet."""
    return float(series[-1].value) if series else 0.0
