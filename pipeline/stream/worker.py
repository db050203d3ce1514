"""The stream worker: poll, begin, and, once batches have passed their stages, publish and commit. It knows no Ray.

One thread owns the session (Kafka clients are not thread-safe): it polls, and publishes and commits. Batches pass the
stages of `pipeline/stream/stages.py` meanwhile, several at a time and in order. They are committed in the order in
which they were read, so offsets only ever cover a finished prefix.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

from pipeline.contracts.broker import Record, StreamSession
from pipeline.contracts.events import event_id
from pipeline.errors import (
    BrokerError,
    BrokerRefused,
    CommitLost,
    CommitRefused,
    DeletedUnread,
    PoisonPill,
)
from pipeline.stream.inspector import Inspector
from pipeline.stream.patience import Patience, Stopped, backoff
from pipeline.stream.stages import Batch, Stages, Work
from pipeline.stream.stall import StallWatch
from pipeline.telemetry import metrics
from pipeline.telemetry.board import Stall

log = logging.getLogger(__name__)
IDLE_POLL_S = 0.2
BUSY_POLL_S = 0.01
MOST_FAULTS = 5
MOST_UNSCORED = 2  # one batch is scored, the next is ready
MOST_UNFINISHED = 4
RATE_S = 10.0
OWED_EACH_S = 0.5


class StreamWorker:
    def __init__(self, inspector: Inspector, open_session: Callable[[], StreamSession]) -> None:
        self._inspector = inspector
        self._open_session = open_session
        self._settings = inspector.settings.stream
        self._patience = Patience()
        self._moved = threading.Event()  # a batch has left a stage
        self._stages = Stages(inspector, self._patience, self._on_moved)
        self._stall_watch = StallWatch(self._settings.stall_s, lambda: self._patience.reason)
        self._losses = 0  # commits in a row
        self._loss_delays = backoff()
        self._begin_at = 0.0  # no batch before
        self._owed_at = 0.0
        self._last_beat = time.monotonic()
        self._faults = 0  # in a row, without a commit between them
        self._lag: dict[int, int] = {}
        self._committed: deque[tuple[float, int]] = deque()  # when and how many images, of the last RATE_S
        self._thread: threading.Thread | None = None

    # Life

    def start(self) -> None:
        self._last_beat = time.monotonic()
        self._stall_watch.start()
        self._thread = threading.Thread(target=self.run, name="stream-worker", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish and commit what is in hand, leave the group, end."""
        self._patience.stopping.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._stages.close()
        self._stall_watch.close()

    def trouble(self) -> str | None:
        """Why this worker is not healthy, or None. Waiting for a server is no ill health: a restart won't help."""
        if self._thread and not self._thread.is_alive() and not self._patience.stopping.is_set():
            return "the worker's thread has ended"
        if self._faults >= MOST_FAULTS:
            return f"{self._faults} faults in a row without a commit: the log has them"
        silent_s = time.monotonic() - max(self._last_beat, self._patience.last_sign)
        if silent_s > self._settings.heartbeat_timeout_s:
            return f"no heartbeat of the worker for {silent_s:.0f} s"
        return None

    @property
    def waiting_for(self) -> str:
        """The server that the worker waits for ("S3", "Kafka"), or nothing."""
        return self._patience.waiting_for

    @property
    def wait_reason(self) -> str:
        """Why it waits for that server, such as a refusal in the server's own words; or nothing."""
        return self._patience.reason

    def stalls(self) -> list[Stall]:
        """What stands still of the line, and why; a line that stands is no fault of the worker's."""
        return self._stall_watch.stalls()

    @property
    def lag(self) -> int:
        """Messages behind the committed offsets of all partitions that this worker owns."""
        return sum(self._lag.values())

    @property
    def images_per_s(self) -> float:
        """Images committed per second, of the last ten."""
        since = time.monotonic() - RATE_S
        return sum(images for at, images in list(self._committed) if at > since) / RATE_S

    def run(self) -> None:
        """Until :meth:`stop`: join the group and consume; when the session breaks, join again."""
        delays = backoff()
        while not self._patience.stopping.is_set():
            try:
                with closing(self._open_session()) as session:
                    metrics.sessions.inc()
                    self._stall_watch.opened(session)
                    if self._patience.over():
                        delays = backoff()
                    self._consume(session)
            except BrokerError as error:
                if isinstance(error, BrokerRefused):
                    self._stall_watch.refused(str(error))
                self._patience.wait("Kafka", error, next(delays))
            except Stopped:
                return
            except Exception:
                # A fault of ours must not end the line: say it whole, and begin again from the committed offsets.
                log.exception("the worker failed; joining the group again")
                self._faults += 1
                self._patience.stopping.wait(next(delays))
            finally:
                self._stall_watch.closed()
                self._tell_lag({})

    # The way of an image: polled, begun, and after its stages published and committed

    def _consume(self, session: StreamSession) -> None:
        waiting: deque[Record] = deque()
        line: deque[Batch] = deque()
        while line or not self._patience.stopping.is_set():
            waiting.extend(self._poll(session, waiting, line))
            self._begin(session, waiting, line)
            finished = self._finished(line)
            self._beat(idle=not line)
            try:
                self._publish_and_commit(session, finished)
            except CommitLost as error:
                metrics.commits_lost.inc()
                waiting.clear()  # everything uncommitted is read again, under a new lease
                self._lost(error)
            self._tell_owed(session)

    def _poll(self, session: StreamSession, waiting: deque[Record], line: deque[Batch]) -> list[Record]:
        held = sum(record.size for record in waiting) + sum(batch.held_bytes for batch in line)
        metrics.buffered_bytes.set(held)
        if held > self._settings.buffer_bytes:
            session.pause()
            metrics.paused.set(1)
        elif held <= self._settings.buffer_bytes // 2:
            session.resume()
            metrics.paused.set(0)
        if line:
            self._moved.wait(BUSY_POLL_S)
            self._moved.clear()
        if self._patience.stopping.is_set():
            session.poll(0)  # stay in the group until what is in hand is committed
            return []
        return session.poll(0 if line or waiting else IDLE_POLL_S)

    def _begin(self, session: StreamSession, waiting: deque[Record], line: deque[Batch]) -> None:
        """Send the next batch on its way as soon as the first stage is free; a suspect goes alone."""
        if self._patience.stopping.is_set() or not self._room(line) or time.monotonic() < self._begin_at:
            return
        works: list[Work] = []
        while waiting and len(works) < self._settings.batch_images:
            if not session.owns(waiting[0]):
                waiting.popleft()
            elif not waiting[0].suspect:
                works.append(Work.of(waiting.popleft()))
            elif works or line:
                break  # what is in flight beside a suspect would end with it
            else:
                works.append(Work.of(waiting.popleft()))
                break
        if works:
            session.begin([work.record for work in works])
            if works[0].record.suspect:
                self._beware(session, works[0])
            metrics.batch_images.observe(len(works))
            line.append(self._stages.begin(works, session.owns, session.largest, alone=works[0].record.suspect))

    def _room(self, line: deque[Batch]) -> bool:
        if not line:
            return True
        if line[-1].alone or not line[-1].prepared.done():
            return False
        unscored = sum(not batch.scored.done() for batch in line)
        unfinished = sum(not batch.cut.done() for batch in line)
        decoded = sum(batch.held_bytes for batch in line)
        return unscored < MOST_UNSCORED and unfinished < MOST_UNFINISHED and decoded <= self._settings.buffer_bytes

    def _beware(self, session: StreamSession, work: Work) -> None:
        before = session.attempt(work.record)
        if before >= self._settings.poison_attempts:
            work.error = PoisonPill(
                f"taken up alone {before} times, and each time the process ended before it was done"
            )

    def _finished(self, line: deque[Batch]) -> list[Work]:
        """The works of a transaction: enough images, or one that has waited long enough, or all that is in flight."""
        ready = list(itertools.takewhile(lambda batch: batch.cut.done(), line))
        if not ready:
            return []
        images = sum(len(batch.works) for batch in ready)
        waited_s = time.monotonic() - ready[0].cut.result()
        all_of_them = len(ready) == len(line)
        if images < self._settings.transaction_images and waited_s < self._settings.transaction_s and not all_of_them:
            return []
        for _ in ready:
            line.popleft()
        for batch in ready:
            batch.cut.result()  # raises what broke a stage
        return [work for batch in ready for work in batch.works]

    def _publish_and_commit(self, session: StreamSession, works: list[Work]) -> None:
        """Messages and offsets in one transaction, for the records that are still ours."""
        ours = [work for work in works if session.owns(work.record)]
        if not ours:
            return
        with metrics.stage_seconds.labels("commit").time():
            session.commit([message for work in ours for message in work.messages], [work.record for work in ours])
        metrics.transaction_images.observe(len(ours))
        self._committed.append((time.monotonic(), len(ours)))
        while self._committed[0][0] < time.monotonic() - RATE_S:
            self._committed.popleft()
        self._faults = self._losses = 0
        self._loss_delays = backoff()
        self._stall_watch.committed({work.record.partition for work in ours})
        self._tell_lag(session.lag())
        for work in ours:
            self._account(work)

    # What the way leans on

    def _account(self, work: Work) -> None:
        envelope = work.captured.envelope if work.captured else None
        told = work.about
        if work.trace:
            work.trace.done("publish")
        if work.error:
            metrics.deadletters.labels(work.error.error_class).inc()
            if isinstance(work.error, DeletedUnread):
                metrics.deleted_unread.inc(work.error.messages)
            log.warning("dead letter: %s: %s", work.error.error_class, work.error, extra=told)
        elif envelope and work.scored:
            verdict = work.scored.verdict
            metrics.images.labels(envelope.subject, verdict).inc()
            told |= {"event": event_id(envelope.id, work.version), "version": work.version, "verdict": verdict}
            log.log(logging.DEBUG if verdict == "OK" else logging.INFO, "%s: %s", envelope.id, verdict, extra=told)
            age = datetime.now(UTC) - envelope.time
            metrics.latency_seconds.labels(envelope.subject).observe(max(0.0, age.total_seconds()))
        if work.trace:
            work.trace.end(told, f"{work.error.error_class}: {work.error}" if work.error else "")

    def _lost(self, error: CommitLost) -> None:
        """One is lost at any rebalance. Where several are in a row, the next try waits, and others than the broker
        should hear of it.
        """
        self._losses += 1
        if self._losses < 2:
            return
        self._begin_at = time.monotonic() + next(self._loss_delays)
        self._stall_watch.lost(str(error))
        if isinstance(error, CommitRefused):
            self._stall_watch.refused(str(error))

    def _tell_owed(self, session: StreamSession) -> None:
        if time.monotonic() >= self._owed_at:
            self._owed_at = time.monotonic() + OWED_EACH_S
            self._tell_lag(session.lag())

    def _tell_lag(self, lag: dict[int, int]) -> None:
        for partition in self._lag.keys() - lag.keys():
            metrics.lag.labels(partition).set(0)  # somebody else's now
        for partition, messages in lag.items():
            metrics.lag.labels(partition).set(messages)
        self._lag = lag
        self._stall_watch.owed(lag)

    def _on_moved(self) -> None:
        self._last_beat = time.monotonic()
        self._moved.set()

    def _beat(self, *, idle: bool) -> None:
        # A batch that never ends silences the heartbeat.
        if idle:
            self._last_beat = time.monotonic()
