"""One simulated replica: what `pipeline/stream/worker.py` and `pipeline/stream/stages.py` do, with drawn times.

The worker's loop polls, begins, finishes and commits in that order and by the worker's own constants; prepare, score
and cut take batches one at a time and in order, each beside the others. Nothing else of a replica is modelled.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from jobs.plan.times import PIPELINE, STAGES, Stage
from pipeline.settings import Stream
from pipeline.stream.worker import BUSY_POLL_S, MOST_UNFINISHED, MOST_UNSCORED

MOST_POLLED = 500
"""Records of a poll: the client's `max_poll_records`."""
Draw = Callable[[Stage, int], float]
Events = Generator[simpy.Event, Any, None]


@dataclass
class Partition:
    """Images of a partition in the order of their offsets. visible_s: when a waiting worker could have each.

    lease: as the worker has them; who reads on begins at ``committed``.
    """

    number: int
    captured_s: np.ndarray
    visible_s: np.ndarray
    finished_s: np.ndarray
    position: int = 0
    committed: int = 0
    lease: int = 0

    def fetchable(self, now: float) -> int:
        return int(np.searchsorted(self.visible_s, now, side="right")) - self.position

    def next_visible_s(self) -> float:
        return float(self.visible_s[self.position]) if self.position < len(self.visible_s) else math.inf

    def rewind(self) -> None:
        """Whoever has it next reads from the committed offset, and what is in flight is nobody's."""
        self.lease += 1
        self.position = self.committed


@dataclass
class Chunk:
    """Images ``[begin, end)`` of a partition, read under a lease."""

    partition: Partition
    begin: int
    end: int
    lease: int

    @property
    def images(self) -> int:
        return self.end - self.begin

    @property
    def owned(self) -> bool:
        return self.lease == self.partition.lease


@dataclass
class Batch:
    chunks: list[Chunk]
    done: set[Stage] = field(default_factory=set)
    cut_at_s: float = 0.0

    @property
    def images(self) -> int:
        return sum(chunk.images for chunk in self.chunks)


class Replica:
    """A process of the simulation from now on. finished: told how many images each commit has."""

    def __init__(
        self, env: simpy.Environment, stream: Stream, message_bytes: int, draw: Draw, finished: Callable[[int], None]
    ) -> None:
        self._env, self._stream, self._bytes = env, stream, message_bytes
        self._draw, self._on_finished = draw, finished
        self.partitions: list[Partition] = []
        self.busy_s: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self.committed = 0
        self.alive = True
        self.stopping = False
        self.ended = env.event()
        self._moved = False
        self._wake = env.event()
        self._waiting: deque[Chunk] = deque()
        self._line: deque[Batch] = deque()
        self._paused = False
        self._turn = 0
        self._queues: dict[Stage, simpy.Store] = {stage: simpy.Store(env) for stage in PIPELINE}
        for place, stage in enumerate(PIPELINE):
            env.process(self._work(stage, PIPELINE[place + 1] if place + 1 < len(PIPELINE) else None))
        env.process(self._run())

    # What happens to it

    def assign(self, partitions: Iterable[Partition]) -> None:
        self.partitions += partitions
        self._stir()

    def revoke(self, partitions: Iterable[Partition]) -> None:
        for one in partitions:
            self.partitions.remove(one)
            one.rewind()

    def die(self) -> None:
        self.alive = False
        self._stir()

    def stop(self) -> None:
        """Finish and commit what is in hand; ``ended`` follows."""
        self.stopping = True
        self._stir()

    # The worker's thread

    def _run(self) -> Events:
        while self.alive and (self._line or not self.stopping):
            yield from self._wait()
            polled = [] if self.stopping else self._poll()
            if polled:
                yield from self._take("poll", sum(chunk.images for chunk in polled))
                self._waiting.extend(polled)
            self._begin()
            ready = self._finished()
            if ready and self.alive:
                yield from self._take("commit", sum(batch.images for batch in ready))
                self._commit(ready)
        self.ended.succeed()

    def _wait(self) -> Events:
        """Until a batch has moved, something can be fetched, or a transaction is due.

        While batches are in flight the worker looks every 10 ms; looks that find nothing are skipped here.
        """
        if not self._moved and (self._line or not self._waiting):
            next_s = min((one.next_visible_s() for one in self.partitions), default=math.inf)
            wait_s = max(0.0, next_s - self._env.now)
            if self._line:
                if "cut" in self._line[0].done:
                    wait_s = min(wait_s, self._line[0].cut_at_s + self._stream.transaction_s - self._env.now)
                if not math.isinf(wait_s):
                    wait_s = BUSY_POLL_S * max(1, math.ceil(wait_s / BUSY_POLL_S))
            if wait_s > 0:
                later = [] if math.isinf(wait_s) else [self._env.timeout(wait_s)]
                yield self._env.any_of([self._stirred(), *later])
        self._moved = False

    def _poll(self) -> list[Chunk]:
        held = self._bytes * (sum(c.images for c in self._waiting) + sum(b.images for b in self._line))
        if held > self._stream.buffer_bytes:
            self._paused = True
        elif held <= self._stream.buffer_bytes // 2:
            self._paused = False
        polled: list[Chunk] = []
        room = 0 if self._paused else MOST_POLLED
        for place in range(len(self.partitions)):
            one = self.partitions[(self._turn + place) % len(self.partitions)]
            images = min(room, one.fetchable(self._env.now))
            if images > 0:
                polled.append(Chunk(one, one.position, one.position + images, one.lease))
                one.position += images
                room -= images
        self._turn += 1
        return polled

    def _begin(self) -> None:
        if self.stopping or not self._room():
            return
        chunks: list[Chunk] = []
        space = self._stream.batch_images
        while self._waiting and space:
            first = self._waiting[0]
            if not first.owned:
                self._waiting.popleft()
            elif first.images <= space:
                chunks.append(self._waiting.popleft())
                space -= first.images
            else:
                chunks.append(Chunk(first.partition, first.begin, first.begin + space, first.lease))
                first.begin += space
                space = 0
        if chunks:
            batch = Batch(chunks)
            self._line.append(batch)
            self._queues["prepare"].put(batch)

    def _room(self) -> bool:
        if not self._line:
            return True
        if "prepare" not in self._line[-1].done:
            return False
        unscored = sum("score" not in batch.done for batch in self._line)
        unfinished = sum("cut" not in batch.done for batch in self._line)
        return unscored < MOST_UNSCORED and unfinished < MOST_UNFINISHED

    def _finished(self) -> list[Batch]:
        ready = list(itertools.takewhile(lambda batch: "cut" in batch.done, self._line))
        if not ready:
            return []
        images = sum(batch.images for batch in ready)
        waited_s = self._env.now - ready[0].cut_at_s
        enough = images >= self._stream.transaction_images or waited_s >= self._stream.transaction_s
        if not enough and len(ready) != len(self._line):
            return []
        for _ in ready:
            self._line.popleft()
        return ready

    def _commit(self, ready: list[Batch]) -> None:
        """What is still ours; a dead replica's transaction is aborted."""
        if not self.alive:
            return
        for chunk in (chunk for batch in ready for chunk in batch.chunks if chunk.owned):
            part = chunk.partition
            assert part.committed == chunk.begin, "offsets only ever cover a finished prefix"
            part.finished_s[chunk.begin : chunk.end] = self._env.now
            part.committed = chunk.end
            self.committed += chunk.images
            self._on_finished(chunk.images)

    # The stages' threads

    def _work(self, stage: Stage, following: Stage | None) -> Events:
        while True:
            batch: Batch = yield self._queues[stage].get()
            # What is no longer owned skips the stages.
            images = sum(chunk.images for chunk in batch.chunks if chunk.owned)
            if images:
                yield from self._take(stage, images)
            if not self.alive:
                return
            batch.done.add(stage)
            if following:
                self._queues[following].put(batch)
            else:
                batch.cut_at_s = self._env.now
            self._stir()

    def _take(self, stage: Stage, images: int) -> Events:
        seconds = self._draw(stage, images)
        self.busy_s[stage] += seconds
        yield self._env.timeout(seconds)

    def _stir(self) -> None:
        self._moved = True
        if not self._wake.triggered:
            self._wake.succeed()

    def _stirred(self) -> simpy.Event:
        if self._wake.triggered:
            self._wake = self._env.event()
        return self._wake
