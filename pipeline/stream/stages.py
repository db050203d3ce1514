"""How the steps of images (pipeline/stream/steps.py) overlap between fetch and commit.

A batch passes three stages. Each has a thread of its own, so that one batch is scored while the next is prepared and
the one before is cut. Batches keep their order from stage to stage.

    prepare   capture, versions, decode     images side by side in the decode pool
    score     the device                    the whole batch at once
    cut       mask, regions, messages       images side by side in the decode pool
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.contracts.broker import Outgoing, Record
from pipeline.errors import DeadLetter
from pipeline.stream.inspector import Inspector
from pipeline.stream.output import Largest, letter_of
from pipeline.stream.patience import Patience
from pipeline.stream.steps import Steps, Work, guarded
from pipeline.telemetry import metrics


@dataclass(frozen=True)
class Batch:
    """Works on their way through the stages; each future is done when the batch has left that stage.

    alone: nothing else may be in flight beside it.
    """

    works: list[Work]
    alone: bool
    prepared: Future[None]
    scored: Future[None]
    cut: Future[float]  # when it was finished, of time.monotonic

    @property
    def held_bytes(self) -> int:
        return sum(work.held_bytes for work in self.works)


class Stages:
    """The stages of one worker, and their threads."""

    def __init__(self, inspector: Inspector, patience: Patience, on_moved: Callable[[], None]) -> None:
        """on_moved: called, in a stage's thread, whenever a batch has left a stage."""
        self._inspector, self._patience, self._on_moved = inspector, patience, on_moved
        self._steps = Steps(inspector, patience.with_store)
        self._pool = ThreadPoolExecutor(inspector.settings.stream.decode_threads, thread_name_prefix="decode")
        self._prepare_thread, self._score_thread, self._cut_thread = (
            ThreadPoolExecutor(1, thread_name_prefix=stage) for stage in ("prepare", "score", "cut")
        )

    def begin(
        self, works: list[Work], owned: Callable[[Record], bool], largest: Largest, *, alone: bool = False
    ) -> Batch:
        """Send works on their way. Those that are no longer ``owned``, or have an error already, skip the stages.

        largest: what each topic takes, asked when messages are made.
        """

        def live() -> list[Work]:
            return [work for work in works if not work.error and owned(work.record)]

        def scoring() -> None:
            prepared.result()
            self._score(live())
            self._on_moved()

        def cutting() -> float:
            scored.result()
            self._cut(works, live(), largest)
            self._on_moved()
            return time.monotonic()

        def preparing() -> None:
            self._prepare(live())
            self._on_moved()

        prepared = self._prepare_thread.submit(preparing)
        scored = self._score_thread.submit(scoring)
        return Batch(works, alone, prepared, scored, self._cut_thread.submit(cutting))

    def close(self) -> None:
        for pool in (self._prepare_thread, self._score_thread, self._cut_thread, self._pool):
            pool.shutdown(wait=False, cancel_futures=True)

    # Inside

    def _prepare(self, batch: list[Work]) -> None:
        self._each("capture", self._steps.capture, batch)
        versions = self._versions(batch)  # one version per product and batch, so that a camera's order is kept
        self._each("decode", lambda work: self._decode(work, versions), batch)

    def _versions(self, batch: list[Work]) -> dict[str, str | DeadLetter]:
        versions: dict[str, str | DeadLetter] = {}
        champion = self._inspector.champions.version
        for product in {work.captured.envelope.subject for work in batch if work.captured and not work.error}:
            try:
                versions[product] = self._patience.with_store(lambda product=product: champion(product))  # type: ignore[misc]
            except DeadLetter as error:
                versions[product] = error
        return versions

    def _decode(self, work: Work, versions: dict[str, str | DeadLetter]) -> None:
        assert work.captured
        version = versions[work.captured.envelope.subject]
        if isinstance(version, DeadLetter):
            raise version
        work.version = version
        self._steps.decode(work)

    def _score(self, batch: list[Work]) -> None:
        with metrics.stage_seconds.labels("score").time():
            self._steps.score([work for work in batch if work.frame])
        for work in batch:
            work.frame = None

    def _cut(self, works: list[Work], live: list[Work], largest: Largest) -> None:
        """From scores to messages; whatever can't become an event becomes a dead letter."""
        self._each("cut", lambda work: self._steps.cut(work, largest), [work for work in live if work.scored])
        for work in works:
            if work.error:
                work.messages = [self._letter(work.record, work.error, largest)]

    def _letter(self, record: Record, error: DeadLetter, largest: Largest) -> Outgoing:
        settings, store = self._inspector.settings, self._inspector.store
        return self._patience.with_store(lambda: letter_of(record, error, settings, store, largest))

    def _each(self, name: str, step: Callable[[Work], None], batch: list[Work]) -> None:
        """``step`` over the batch in the decode pool; a record that fails keeps its error and skips what follows."""
        with metrics.stage_seconds.labels(name).time():
            list(self._pool.map(lambda work: guarded(name, step, work), [work for work in batch if not work.error]))
