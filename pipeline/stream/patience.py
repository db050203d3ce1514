"""Waiting for a server: again and again, with growing pauses, until it answers or the worker is told to stop."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pipeline.errors import StoreUnavailable
from pipeline.telemetry import metrics

log = logging.getLogger(__name__)
T = TypeVar("T")
LONGEST_WAIT_S = 5.0
SAY_AGAIN_S = 60.0


class Stopped(Exception):
    """The worker was told to stop while it waited for a server."""


class Patience:
    """Shared by all threads of a worker. last_sign: when one of them last asked a server in vain, or got an answer."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.last_sign = 0.0  # of time.monotonic
        self._waits: dict[int, tuple[str, str]] = {}  # thread to server and reason
        self._lock = threading.Lock()
        self._said: tuple[str, float] = ("", 0.0)

    @property
    def waiting_for(self) -> str:
        """The server that a thread waits for, or nothing."""
        return self._wait[0]

    @property
    def reason(self) -> str:
        """Why it waits, in the server's own words as far as it says any; or nothing."""
        return self._wait[1]

    def with_store(self, act: Callable[[], T]) -> T:
        """``act``, until the store answers. Raises Stopped."""
        delays = backoff()
        try:
            while True:
                try:
                    return act()
                except StoreUnavailable as error:
                    if self.stopping.is_set():
                        raise Stopped from None
                    self.wait("S3", error, next(delays))
        finally:
            self.over()

    def wait(self, server: str, error: Exception, delay_s: float) -> None:
        """Say whom we wait for and why, and again from time to time; then sleep. A stop ends the sleep."""
        now = time.monotonic()
        with self._lock:
            self._waits[threading.get_ident()] = (server, str(error))
            said, at = self._said
            if say := said != server or now - at > SAY_AGAIN_S:
                self._said = (server, now)
        if say:
            log.warning("waiting for %s: %s", server, error)
        metrics.waits.labels(server).inc()
        self.last_sign = now
        self.stopping.wait(delay_s)

    def over(self) -> bool:
        """This thread waits no longer. Returns whether it did."""
        self.last_sign = time.monotonic()
        with self._lock:
            waited = self._waits.pop(threading.get_ident(), None) is not None
            if not self._waits:
                self._said = ("", 0.0)
        return waited

    @property
    def _wait(self) -> tuple[str, str]:
        with self._lock:
            return next(iter(self._waits.values()), ("", ""))


def backoff() -> Iterator[float]:
    """Delays in seconds that double up to a limit, with jitter so that replicas don't knock in step."""
    delay = 0.1
    while True:
        yield delay * random.uniform(0.5, 1.5)
        delay = min(delay * 2, LONGEST_WAIT_S)
