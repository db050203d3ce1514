"""What happens to an image between fetch and commit: capture, decode, score, cut.

A batch passes three stages. Each has a thread of its own, so that one batch is scored while the next is prepared and
the one before is cut. Batches keep their order from stage to stage.

    prepare   capture, versions, decode     images side by side in the decode pool
    score     the device                    the whole batch at once
    cut       mask, regions, messages       images side by side in the decode pool
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from model import Frame, Scored
from pipeline.contracts.broker import Outgoing, Record
from pipeline.errors import DeadLetter, InspectionFailed, StoreUnavailable
from pipeline.stream.inspector import Inspector
from pipeline.stream.intake import Captured, captured
from pipeline.stream.output import Inspected, Largest, letter_of, output_messages
from pipeline.stream.patience import Patience, Stopped
from pipeline.telemetry import metrics

log = logging.getLogger(__name__)


@dataclass
class Work:
    """One record on its way to its messages."""

    record: Record
    captured: Captured | None = None
    version: str = ""
    frame: Frame | None = None
    scored: Scored | None = None
    messages: list[Outgoing] = field(default_factory=list)
    error: DeadLetter | None = None

    @classmethod
    def of(cls, record: Record) -> "Work":
        return cls(record, error=record.error)

    @property
    def held_bytes(self) -> int:
        """What it keeps in memory: the message, an image fetched for a claim check, decoded pixels."""
        fetched = len(self.captured.data) if self.captured and self.captured.data is not self.record.value else 0
        return self.record.size + fetched + (self.frame.pixels.nbytes if self.frame else 0)


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
        self._settings = inspector.settings
        self._pool = ThreadPoolExecutor(self._settings.stream.decode_threads, thread_name_prefix="decode")
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

    # The way of an image

    def _prepare(self, batch: list[Work]) -> None:
        self._each("capture", self._capture, batch)
        versions = self._versions(batch)  # one version per product and batch, so that a camera's order is kept
        self._each("decode", lambda work: self._decode(work, versions), batch)

    def _capture(self, work: Work) -> None:
        limits = self._settings.limits
        work.captured = self._patience.with_store(lambda: captured(work.record, self._inspector.store, limits))

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
        product = work.captured.envelope.subject
        version = versions[product]
        if isinstance(version, DeadLetter):
            raise version
        work.version = version
        data = work.captured.data
        work.frame = self._patience.with_store(lambda: self._inspector.read(data, f"{product}/{version}"))
        work.captured = replace(work.captured, data=b"")  # decoded: an image fetched for a claim check can go

    def _score(self, batch: list[Work]) -> None:
        with metrics.stage_seconds.labels("score").time():
            self._score_together([work for work in batch if work.frame])
        for work in batch:
            work.frame = None

    def _score_together(self, batch: list[Work]) -> None:
        frames = [work.frame for work in batch if work.frame]
        keys = [f"{work.captured.envelope.subject}/{work.version}" for work in batch if work.captured]
        try:
            scores = self._patience.with_store(lambda: self._inspector.score(frames, keys)) if batch else []
        except (Stopped, StoreUnavailable):
            raise
        except Exception as error:
            if len(batch) == 1:
                log.exception("scoring failed")
                batch[0].error = InspectionFailed(f"scoring failed: {type(error).__name__}: {error}")
                return
            for work in batch:  # find the one that breaks the others
                self._score_together([work])
            return
        for work, scored in zip(batch, scores, strict=True):
            work.scored = scored

    def _cut(self, works: list[Work], live: list[Work], largest: Largest) -> None:
        """From scores to messages; whatever can't become an event becomes a dead letter."""
        self._each("cut", lambda work: self._messages(work, largest), [work for work in live if work.scored])
        for work in works:
            if work.error:
                work.messages = [self._letter(work.record, work.error, largest)]

    def _letter(self, record: Record, error: DeadLetter, largest: Largest) -> Outgoing:
        store = self._inspector.store
        return self._patience.with_store(lambda: letter_of(record, error, self._settings, store, largest))

    def _messages(self, work: Work, largest: Largest) -> None:
        assert work.captured
        assert work.scored
        findings = self._inspector.cut(work.scored)
        inspected = Inspected(work.captured, work.version, work.scored, findings, datetime.now(UTC))
        store = self._inspector.store
        work.messages = self._patience.with_store(lambda: output_messages(inspected, self._settings, store, largest))

    def _each(self, name: str, step: Callable[[Work], None], batch: list[Work]) -> None:
        """``step`` over the batch in the decode pool; a record that fails keeps its error and skips what follows."""

        def guarded(work: Work) -> None:
            try:
                step(work)
            except DeadLetter as error:
                work.error = error
            except (Stopped, StoreUnavailable):
                raise
            except Exception as error:
                log.exception("%s failed", name)
                work.error = InspectionFailed(f"{name} failed: {type(error).__name__}: {error}")

        with metrics.stage_seconds.labels(name).time():
            list(self._pool.map(guarded, [work for work in batch if not work.error]))
