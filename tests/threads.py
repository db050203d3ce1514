"""Threads of a test: one that dies fails its test at once, with its own error, not where somebody waits in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_deaths: list[BaseException] = []


@contextmanager
def watched() -> Iterator[None]:
    """Note which threads die meanwhile; pytest hears of them too."""
    usual = threading.excepthook

    def note(death: threading.ExceptHookArgs) -> None:
        if death.exc_value is not None:
            _deaths.append(death.exc_value)
        usual(death)

    _deaths.clear()
    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = usual
        _deaths.clear()


def all_live() -> None:
    """Raises what the first thread died of."""
    if _deaths:
        raise AssertionError(f"a thread of this test died: {_deaths[0]!r}") from _deaths[0]


def together(*works: Callable[[], object]) -> None:
    """All at once, each in a thread; returns when all have ended, and raises what the first of them raised."""
    start = threading.Barrier(len(works))

    def begin(work: Callable[[], object]) -> None:
        start.wait()
        work()

    with ThreadPoolExecutor(len(works), thread_name_prefix="together") as pool:
        for done in [pool.submit(begin, work) for work in works]:
            done.result()
