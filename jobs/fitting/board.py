"""Who fits what, and how far each has come: one actor that the lanes of a run ask and tell.

A lane is one worker, or a group of them. Short fits share a lane, one after another, for starting one costs more than
some of the fits. A product is one lane's at a time; where the lane ends before it is done, it goes to whichever lane
asks next, which goes on from its last checkpoint (jobs/fitting/checkpoints.py).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.fitting.task import Task

BeatValues = tuple[str, str, int, int, float]
"""The fields of a jobs.session.progress.Beat."""


@dataclass
class Standing:
    """How a run stands. done: product to version; failed: product to the reason.

    waiting: products that nobody has, and how many workers each wants, the next one first. held: lane to its product.
    beats: the newest of each product that is being fitted. told: notes for who watches, each once.
    """

    waiting: list[tuple[str, int]]
    held: dict[str, str]
    done: dict[str, str]
    failed: dict[str, str]
    beats: list[BeatValues] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return not self.waiting and not self.held


class Board:
    """Runs as an actor, so calls come one at a time."""

    def __init__(self, tasks: Sequence[dict[str, Any]], attempts: int) -> None:
        """tasks: the fields of Tasks. attempts: how often a product goes on after its lane has died."""
        longest_first = sorted((Task(**task) for task in tasks), key=lambda task: (-task.work, task.product))
        self._tasks = {task.product: task for task in longest_first}
        self._waiting = [task.product for task in longest_first]
        self._attempts = attempts
        self._ends = dict.fromkeys(self._tasks, 0)
        self._held: dict[str, str] = {}
        self._done: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._beats: dict[str, BeatValues] = {}
        self._told: list[str] = []

    def take(self, lane: str) -> dict[str, Any] | None:
        """What the lane holds, or else the next product; None where there is none, and it may end.

        It may end, too, where the next one wants several workers: they are to have its place.
        """
        product = self._held.get(lane)
        if product is None and self._waiting and self._tasks[self._waiting[0]].workers == 1:
            product = self._waiting.pop(0)
            self._held[lane] = product
        return asdict(self._tasks[product]) if product is not None else None

    def reserve(self, lane: str, product: str) -> None:
        """A product of several workers is this lane's from before it begins."""
        self._waiting.remove(product)
        self._held[lane] = product

    def holds(self, lane: str, product: str) -> bool:
        """Whether the product is still this lane's: one that was given up for dead may not publish any more."""
        return self._held.get(lane) == product

    def write(self, lane: str, phase: str, step: int, steps: int, loss: float) -> None:
        product = self._held.get(lane)
        if product is not None:
            self._beats[product] = (product, phase, step, steps, loss)

    def done(self, lane: str, version: str) -> None:
        if product := self._let_go(lane):
            self._done[product] = version

    def failed(self, lane: str, reason: str, *, final: bool) -> None:
        """final: another attempt would end the same."""
        if (product := self._let_go(lane)) is None:
            return
        self._ends[product] += 1
        if final or self._ends[product] > self._attempts:
            self._failed[product] = reason
            return
        self._waiting.insert(0, product)
        self._told.append(f"{product}: {reason}; it goes on from its last checkpoint elsewhere")

    def stumbled(self, lane: str, reason: str) -> None:
        """An error that nobody foresaw, which another process may not meet; if the next one does, it is final."""
        product = self._held.get(lane)
        if product is not None:
            self.failed(lane, reason, final=self._ends[product] > 0 or self._attempts == 0)

    def refuse(self, product: str, reason: str) -> None:
        """A product that waits can't be fitted here."""
        if product in self._waiting:
            self._waiting.remove(product)
            self._failed[product] = reason

    def standing(self) -> Standing:
        told, self._told = self._told, []
        return Standing(
            [(name, self._tasks[name].workers) for name in self._waiting],
            dict(self._held),
            dict(self._done),
            dict(self._failed),
            list(self._beats.values()),
            told,
        )

    def _let_go(self, lane: str) -> str | None:
        product = self._held.pop(lane, None)
        if product is not None:
            self._beats.pop(product, None)
        return product
