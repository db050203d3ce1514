"""Whether the line stands still, where, since when, and why.

By clocks, in a thread of its own: the worker's may be the one that stands. A line stands still where something is in
its way that is known (a broker's refusal, a topic that is gone, messages that can't be read), and where nothing was
committed for `stream.stall_s` while there is something to commit, whatever the cause.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta

from pipeline.contracts.broker import StreamSession
from pipeline.telemetry import board, metrics
from pipeline.telemetry.board import Stall

log = logging.getLogger(__name__)
LOOK_S = 1.0
CLOSE_S = 5.0
"""So long its thread may take to wipe the board: a disk that hangs does not hold the replica's end up."""
REFUSED_FOR_S = 15.0
"""So long after its last time a refusal counts: longer than the pauses between tries."""


class StallWatch:
    def __init__(self, stall_s: float, waiting: Callable[[], str]) -> None:
        """waiting: why a thread of the worker waits for a server, or nothing."""
        self._stall_s, self._waiting = stall_s, waiting
        self._session: StreamSession | None = None
        self._alone_since = time.monotonic()  # without a session
        self._due: dict[int, float] = {}  # partition to since when something there is due
        self._refusal: tuple[str, float, float] | None = None  # reason, first and last time
        self._loss = ""
        self._found: dict[int | None, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stall-watch", daemon=True)

    def start(self) -> None:
        metrics.stalled.labels("all").set(0)
        self._thread.start()

    def close(self) -> None:
        """Its board is wiped when this returns: nothing of it is put up over what comes after."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    # What the worker tells

    def opened(self, session: StreamSession) -> None:
        self._session = session

    def closed(self) -> None:
        """It has no session now."""
        self._session, self._alone_since, self._due = None, time.monotonic(), {}

    def owed(self, lag: Mapping[int, int]) -> None:
        """How many messages wait in each partition that it has."""
        now = time.monotonic()
        self._due = {partition: self._due.get(partition, now) for partition, messages in lag.items() if messages}

    def committed(self, partitions: Collection[int]) -> None:
        now = time.monotonic()
        self._due = {partition: now if partition in partitions else since for partition, since in self._due.items()}
        self._refusal, self._loss = None, ""

    def refused(self, reason: str) -> None:
        now = time.monotonic()
        same = self._refusal is not None and self._refusal[0] == reason
        self._refusal = (reason, self._refusal[1] if same and self._refusal else now, now)

    def lost(self, reason: str) -> None:
        """Why the last commit was lost: what is known where nothing is committed any more."""
        self._loss = reason

    # What is asked, from any thread

    def stalls(self) -> list[Stall]:
        """What stands still now, the longest first; says in the log what has changed since it was last asked."""
        with self._lock:
            now = time.monotonic()
            found = {
                where: (reason, self._found[where][1] if where in self._found else since)
                for where, (reason, since) in self._look(now).items()
            }
            before, self._found = self._found, found
            told = [
                Stall(reason, datetime.now(UTC) - timedelta(seconds=now - since), where)
                for where, (reason, since) in sorted(found.items(), key=lambda one: one[1][1])
            ]
            self._say(before, found)
        return told

    # Inside

    def _run(self) -> None:
        while not self._closed.wait(LOOK_S):
            self._put_up(self.stalls())
        self._put_up([])

    def _put_up(self, stalls: list[Stall]) -> None:
        try:
            board.put_up(stalls)
        except OSError as error:  # a full disk; this replica tells its own in any case
            log.warning("other replicas don't hear what stands still here: %s", error)

    def _look(self, now: float) -> dict[int | None, tuple[str, float]]:
        """Where it stands, why, and since when at the latest."""
        session, refusal = self._session, self._refusal
        found: dict[int | None, tuple[str, float]] = {}
        if session is not None:
            found = {where: (reason, now) for where, reason in session.hindrances().items()}
        if refusal and (session is None or now - refusal[2] < REFUSED_FOR_S):
            found.setdefault(None, (refusal[0], refusal[1]))
        why = self._waiting() or self._loss
        late = {
            partition: since
            for partition, since in dict(self._due).items()
            if now - since > self._stall_s and partition not in found
        }
        if session is None and now - self._alone_since > self._stall_s and not self._closed.is_set():
            found.setdefault(None, (why or "it is not in the consumer group", self._alone_since))
        if late and None not in found:
            what = f"nothing is committed for more than {self._stall_s:g} s while messages wait"
            if why:
                found[None] = (f"{what}: {why}", min(late.values()))
            else:
                found |= {partition: (f"{what}; the log may say why", since) for partition, since in late.items()}
        return found

    def _say(self, before: Mapping[int | None, object], after: Mapping[int | None, tuple[str, float]]) -> None:
        for where in before.keys() - after.keys():
            log.warning("%s goes on", _name(where), extra=_extra(where))
            metrics.stalled.labels(_label(where)).set(0)
        for where in after.keys() - before.keys():
            log.error("%s is stalled: %s", _name(where), after[where][0], extra=_extra(where))
            metrics.stalled.labels(_label(where)).set(1)


def _name(where: int | None) -> str:
    return "the line" if where is None else f"partition {where}"


def _extra(where: int | None) -> dict[str, object]:
    return {} if where is None else {"partition": where}


def _label(where: int | None) -> str:
    return "all" if where is None else str(where)
