"""How a command ends before its time: by Ctrl-C or SIGTERM, what was begun is undone just the same."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)
_received: signal.Signals | None = None
_over = False


def listen() -> None:
    """For a process that is one command: either signal raises KeyboardInterrupt in the main thread from now on."""
    for number in ENDING:
        signal.signal(number, _end)


def received() -> signal.Signals | None:
    """Which of the two came first."""
    return _received


def over() -> None:
    """The command has ended, and has cleaned up: one that comes while Python itself ends finds nothing to undo."""
    global _over
    _over = True


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Ray puts handlers of its own in place of ours, in Python and in C++: those of C++ print a stack and abort."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    global _received
    if _over:
        os._exit(128 + number)
    _received = _received or signal.Signals(number)
    raise KeyboardInterrupt
