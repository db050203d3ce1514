"""Waiting for a server: again and again, with growing pauses, until it answers or the worker is told to stop."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pipeline import metrics
from pipeline.errors import StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
LONGEST_WAIT_S = 5.0


class Stopped(Exception):
    """The worker was told to stop while it waited for a server."""


class Patience:
    """Shared by all threads of a worker. waiting_for: the server that one of them waits for, or nothing."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.waiting_for = ""
        self.last_wait = 0.0  # of time.monotonic

    def with_store(self, act: Callable[[], T]) -> T:
        """``act``, until the store answers. Raises Stopped."""
        delays = backoff()
        while True:
            try:
                result = act()
            except StoreUnavailable as error:
                if self.stopping.is_set():
                    raise Stopped from None
                self.wait("S3", error, next(delays))
            else:
                if self.waiting_for == "S3":
                    self.waiting_for = ""
                return result

    def wait(self, server: str, error: Exception, delay_s: float) -> None:
        """Say once whom we wait for, then sleep; a stop ends the sleep."""
        if self.waiting_for != server:
            log.warning("waiting for %s: %s", server, error)
        self.waiting_for = server
        metrics.waits.labels(server).inc()
        self.last_wait = time.monotonic()
        self.stopping.wait(delay_s)


def backoff() -> Iterator[float]:
    """Delays in seconds that double up to a limit, with jitter so that replicas don't knock in step."""
    delay = 0.1
    while True:
        yield delay * random.uniform(0.5, 1.5)
        delay = min(delay * 2, LONGEST_WAIT_S)
