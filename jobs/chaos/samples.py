"""The figures of a run over time: images in and out, replicas and their memory; as lines of JSON and as a picture."""

import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from jobs.chaos.plan import INTERVALS_S
from jobs.line.deploy import replicas
from jobs.session.ray_session import RaySession

WARM_IMAGES = 10_000
"""Until then a replica may grow: pools fill, code is compiled, buffers find their size."""
_WINDOW_IMAGES = 2_000
_FINEST_MEAN, _MOST_MEANS = 4, 150
_COLOURS = {
    "replica": "#c0392b",
    "stopped": "#e67e22",
    "broker": "#2c3e50",
    "store": "#8e44ad",
    "node": "#16a085",
    "cut": "#2980b9",
    "split": "#f39c12",
}


@dataclass(frozen=True)
class Sample:
    """At one moment. committed: images below the group's offsets. rss_mib: resident memory of each running replica."""

    at_s: float
    sent: int
    committed: int
    rss_mib: dict[int, float]


class Samples:
    """Taken as the run goes on, and written as they come."""

    def __init__(self, path: Path, session: RaySession) -> None:
        self._path, self._session = path, session
        self._pids: set[int] = set()
        self.taken: list[Sample] = []

    def take(self, at_s: float, sent: int, committed: int) -> None:
        """One more; a Serve that does not answer leaves the replicas as they were."""
        with suppress(Exception):  # the dashboard is away while the head is busy with a dead node
            self._pids = {one["pid"] for one in replicas(self._session) if one["state"] == "RUNNING" and one.get("pid")}
        memory = {}
        for pid in self._pids:
            with suppress(psutil.Error):
                if resident := psutil.Process(pid).memory_info().rss:  # 0: killed, and nobody has noticed yet
                    memory[pid] = round(resident / 2**20, 1)
        sample = Sample(round(at_s, 2), sent, committed, memory)
        self.taken.append(sample)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(sample)) + "\n")


def memory(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """How much the replica grew that ran all the time, in MiB and as a share; None if there was none, or too early.

    Medians over the 2,000 images behind the first 10,000, and over the last 2,000.
    """
    if not samples or samples[-1].committed < WARM_IMAGES + 2 * _WINDOW_IMAGES:
        return None
    last = samples[-1].committed
    warm = [one for one in samples if WARM_IMAGES <= one.committed <= WARM_IMAGES + _WINDOW_IMAGES]
    end = [one for one in samples if last - _WINDOW_IMAGES <= one.committed]
    always = set.intersection(*(set(one.rss_mib) for one in [*warm, *end]))
    if not warm or not always:
        return None
    pid = min(always)
    before, after = (statistics.median(one.rss_mib[pid] for one in some) for some in (warm, end))
    return {"warm_mib": before, "end_mib": after, "growth": round(after / before - 1, 4)}


def most_behind(samples: Sequence[Sample]) -> int:
    """Images sent and not committed, at the worst moment."""
    return max((one.sent - one.committed for one in samples), default=0)


def longest_standstill_s(samples: Sequence[Sample]) -> float:
    """The longest time in which nothing was committed though images waited, of all replicas together."""
    longest, moved_at, highest = 0.0, 0.0, 0
    for one in samples:
        longest = max(longest, one.at_s - moved_at)
        if one.committed > highest or one.committed >= one.sent:
            moved_at, highest = one.at_s, max(highest, one.committed)
    return round(longest, 2)


def draw(samples: Sequence[Sample], timeline: Path, picture: Path, title: str) -> None:
    """Images a second, lag, replicas and memory over time, with a line for each fault, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    rates, lag, count, size = figure.subplots(4, 1, sharex=True)
    at = [one.at_s for one in samples]
    for name, of in (("sent", lambda one: one.sent), ("committed", lambda one: one.committed)):
        rates.plot(*_per_second(samples, of), label=name)
    lag.plot(at, [one.sent - one.committed for one in samples])
    count.step(at, [len(one.rss_mib) for one in samples], where="post")
    for pid in sorted({pid for one in samples for pid in one.rss_mib}):
        lived = [(one.at_s, one.rss_mib[pid]) for one in samples if pid in one.rss_mib]
        size.plot(*zip(*lived, strict=True), linewidth=1)
    faults = [json.loads(line) for line in timeline.read_text().splitlines()] if timeline.exists() else []
    for panel in (rates, lag, count, size):
        for kind in INTERVALS_S:
            for number, fault in enumerate(one for one in faults if one["kind"] == kind):
                label = kind if panel is rates and number == 0 else None
                panel.axvline(fault["at_s"], color=_COLOURS[kind], linewidth=0.6, alpha=0.6, label=label)
        panel.set_ylim(0, 1.05 * panel.get_ylim()[1])
        panel.grid(alpha=0.2)
    rates.set_ylabel("images / s")
    rates.legend(loc="upper right", ncols=7, fontsize="small")
    lag.set_ylabel("images behind")
    count.set_ylabel("replicas")
    count.yaxis.get_major_locator().set_params(integer=True)
    size.set_ylabel("resident MiB, each")
    size.set_xlabel("s")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(picture, dpi=90)


def _per_second(samples: Sequence[Sample], of: Callable[[Sample], int]) -> tuple[list[float], list[float]]:
    """Mean rates over some samples each."""
    thinned = samples[:: max(_FINEST_MEAN, len(samples) // _MOST_MEANS)]
    steps = [(a, b) for a, b in pairwise(thinned) if b.at_s > a.at_s]
    return [b.at_s for _, b in steps], [(of(b) - of(a)) / (b.at_s - a.at_s) for a, b in steps]
