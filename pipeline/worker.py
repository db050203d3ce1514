"""The stream worker: poll, capture, decode, score, cut, publish and commit. It knows no Ray.

One thread owns the session (Kafka clients are not thread-safe): it polls, and publishes and commits. A second thread
takes a batch from capture to finished messages, so that one batch is scored while the next is fetched and the one
before is committed. Batches are committed in the order in which they were read, so offsets only ever cover a finished
prefix.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from model import Frame, Scored
from pipeline import metrics
from pipeline.broker import Outgoing, Record, StreamSession
from pipeline.deadletters import dead_letter
from pipeline.errors import BrokerError, CommitLost, DeadLetter, StoreUnavailable
from pipeline.inspector import Inspector
from pipeline.intake import Captured, captured
from pipeline.output import Inspected, output_messages

log = logging.getLogger(__name__)
T = TypeVar("T")
IDLE_POLL_S = 0.2
BUSY_POLL_S = 0.01
LONGEST_WAIT_S = 5.0
MOST_FAULTS = 5


class InspectionFailed(DeadLetter):
    """The image could be read, and still something in its inspection broke."""


class Stopped(Exception):
    """The worker was told to stop while it waited for a server."""


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


class StreamWorker:
    def __init__(self, inspector: Inspector, open_session: Callable[[], StreamSession]) -> None:
        self._inspector = inspector
        self._open_session = open_session
        self._settings = inspector.settings
        self._pool = ThreadPoolExecutor(self._settings.stream.decode_threads, thread_name_prefix="decode")
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._stopping = threading.Event()
        self._last_beat = time.monotonic()
        self._beaten: Future[list[Work]] | None = None
        self._faults = 0  # in a row, without a commit between them
        self._waiting_for = ""
        self._thread: threading.Thread | None = None

    # Life

    def start(self) -> None:
        self._thread = threading.Thread(target=self.run, name="stream-worker", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish and commit the batch in hand, leave the group, end."""
        self._stopping.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._scoring.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def trouble(self) -> str | None:
        """Why this worker is not healthy, or None. Waiting for a server is no ill health: a restart won't help."""
        if self._thread and not self._thread.is_alive() and not self._stopping.is_set():
            return "the worker's thread has ended"
        if self._faults >= MOST_FAULTS:
            return f"{self._faults} faults in a row without a commit: the log has them"
        silent_s = time.monotonic() - self._last_beat
        if silent_s > self._settings.stream.heartbeat_timeout_s:
            return f"no heartbeat of the worker for {silent_s:.0f} s"
        return None

    @property
    def waiting_for(self) -> str:
        """The server that the worker waits for ("S3", "Kafka"), or nothing."""
        return self._waiting_for

    def run(self) -> None:
        """Until :meth:`stop`: join the group and consume; when the session breaks, join again."""
        delays = backoff()
        while not self._stopping.is_set():
            try:
                with closing(self._open_session()) as session:
                    metrics.sessions.inc()
                    if self._waiting_for:
                        self._waiting_for, delays = "", backoff()
                    self._consume(session)
            except BrokerError as error:
                self._wait("Kafka", error, next(delays))
            except Stopped:
                return
            except Exception:
                # A fault of ours must not end the line: say it whole, and begin again from the committed offsets.
                log.exception("the worker failed; joining the group again")
                self._faults += 1
                self._stopping.wait(next(delays))

    # The way of an image

    def _consume(self, session: StreamSession) -> None:
        waiting: deque[Record] = deque()
        batch: Future[list[Work]] | None = None
        while batch or not self._stopping.is_set():
            self._beat(batch)
            waiting.extend(self._poll(session, waiting, batch))
            if batch and not batch.done():
                continue
            finished = batch.result() if batch else []
            batch = self._begin(session, waiting)  # scores the next batch while the finished one commits
            try:
                self._publish_and_commit(session, finished)
            except CommitLost:
                metrics.commits_lost.inc()
                waiting.clear()  # everything uncommitted is read again, under a new lease

    def _poll(self, session: StreamSession, waiting: deque[Record], batch: Future[list[Work]] | None) -> list[Record]:
        if self._stopping.is_set():
            if batch:
                wait([batch], BUSY_POLL_S)
            session.poll(0)  # stay in the group until the batch in hand is committed
            return []
        size = sum(record.size for record in waiting)
        metrics.buffered_bytes.set(size)
        if size > self._settings.stream.buffer_bytes:
            session.pause()
            metrics.paused.set(1)
        elif size <= self._settings.stream.buffer_bytes // 2:
            session.resume()
            metrics.paused.set(0)
        if batch:
            wait([batch], BUSY_POLL_S)
            return session.poll(0)
        return session.poll(IDLE_POLL_S)

    def _begin(self, session: StreamSession, waiting: deque[Record]) -> Future[list[Work]] | None:
        records: list[Record] = []
        while waiting and len(records) < self._settings.stream.batch_images:
            record = waiting.popleft()
            if session.owns(record):
                records.append(record)
        if not records or self._stopping.is_set():
            return None
        metrics.batch_images.observe(len(records))
        return self._scoring.submit(self._inspect, records)

    def _inspect(self, records: list[Record]) -> list[Work]:
        """From records to messages; whatever can't become an event becomes a dead letter."""
        batch = [Work(record) for record in records]
        self._stage("capture", self._capture, batch)
        versions = self._versions(batch)  # one version per product and batch, so that a camera's order is kept
        self._stage("decode", lambda work: self._decode(work, versions), batch)
        with metrics.stage_seconds.labels("score").time():
            self._score([work for work in batch if not work.error])
        self._stage("cut", self._cut, batch)
        for work in batch:
            if work.error:
                topic = self._settings.topics.deadletters
                work.messages = [dead_letter(work.record, work.error, topic)]
        return batch

    def _capture(self, work: Work) -> None:
        limits = self._settings.limits
        work.captured = self._patiently(lambda: captured(work.record, self._inspector.store, limits))

    def _decode(self, work: Work, versions: dict[str, str | DeadLetter]) -> None:
        assert work.captured
        product = work.captured.envelope.subject
        version = versions[product]
        if isinstance(version, DeadLetter):
            raise version
        work.version = version
        data = work.captured.data
        work.frame = self._patiently(lambda: self._inspector.read(data, f"{product}/{version}"))

    def _score(self, batch: list[Work]) -> None:
        frames = [work.frame for work in batch if work.frame]
        keys = [f"{work.captured.envelope.subject}/{work.version}" for work in batch if work.captured]
        try:
            scores = self._patiently(lambda: self._inspector.score(frames, keys)) if batch else []
        except (Stopped, StoreUnavailable):
            raise
        except Exception as error:
            if len(batch) == 1:
                log.exception("scoring failed")
                batch[0].error = InspectionFailed(f"scoring failed: {type(error).__name__}: {error}")
                return
            for work in batch:  # find the one that breaks the others
                self._score([work])
            return
        for work, scored in zip(batch, scores, strict=True):
            work.scored = scored

    def _cut(self, work: Work) -> None:
        assert work.captured
        assert work.scored
        findings = self._inspector.cut(work.scored)
        inspected = Inspected(work.captured, work.version, work.scored, findings, datetime.now(UTC))
        work.messages = self._patiently(lambda: output_messages(inspected, self._settings, self._inspector.store))

    def _publish_and_commit(self, session: StreamSession, batch: list[Work]) -> None:
        """Messages and offsets in one transaction, for the records that are still ours."""
        ours = [work for work in batch if session.owns(work.record)]
        if not ours:
            return
        with metrics.stage_seconds.labels("commit").time():
            session.commit([message for work in ours for message in work.messages], [work.record for work in ours])
        self._faults = 0
        for work in ours:
            if work.error:
                metrics.deadletters.labels(work.error.error_class).inc()
                log.warning("dead letter: %s: %s", work.error.error_class, work.error)
            elif work.captured and work.scored:
                product = work.captured.envelope.subject
                metrics.images.labels(product, work.scored.verdict).inc()
                age = datetime.now(UTC) - work.captured.envelope.time
                metrics.latency_seconds.labels(product).observe(max(0.0, age.total_seconds()))

    # What the way leans on

    def _stage(self, name: str, step: Callable[[Work], None], batch: list[Work]) -> None:
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

    def _versions(self, batch: list[Work]) -> dict[str, str | DeadLetter]:
        versions: dict[str, str | DeadLetter] = {}
        for product in {work.captured.envelope.subject for work in batch if work.captured and not work.error}:
            try:
                versions[product] = self._patiently(lambda product=product: self._inspector.champions.version(product))  # type: ignore[misc]
            except DeadLetter as error:
                versions[product] = error
        return versions

    def _patiently(self, act: Callable[[], T]) -> T:
        """``act``, again and again while the store does not answer. Partitions pause meanwhile; nothing is dropped."""
        delays = backoff()
        while True:
            try:
                result = act()
            except StoreUnavailable as error:
                if self._stopping.is_set():
                    raise Stopped from None
                self._wait("S3", error, next(delays))
            else:
                self._waiting_for = ""
                return result

    def _wait(self, server: str, error: Exception, delay_s: float) -> None:
        if self._waiting_for != server:
            log.warning("waiting for %s: %s", server, error)
        self._waiting_for = server
        metrics.waits.labels(server).inc()
        self._last_beat = time.monotonic()
        self._stopping.wait(delay_s)

    def _beat(self, batch: Future[list[Work]] | None) -> None:
        # A batch that never ends silences the heartbeat, unless it says that it waits for a server.
        if batch is not self._beaten or batch is None or batch.done() or self._waiting_for:
            self._beaten = batch
            self._last_beat = time.monotonic()


def backoff() -> Iterator[float]:
    """Delays in seconds that double up to a limit, with jitter so that replicas don't knock in step."""
    delay = 0.1
    while True:
        yield delay * random.uniform(0.5, 1.5)
        delay = min(delay * 2, LONGEST_WAIT_S)
