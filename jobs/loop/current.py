"""The history as of now: for commands that answer from it, whether or not a follower runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.session.progress import Screen
from pipeline.errors import HistoryUnavailable
from pipeline.history import Following, History
from pipeline.settings import Settings


@contextmanager
def current(settings: Settings, screen: Screen) -> Iterator[History]:
    """Reads what is new first. Beside a follower that runs this does no harm.

    Raises:
        HistoryError: as `History` does.
    """
    with History(settings) as history:
        following, stop = Following(settings, history, screen.say), threading.Event()
        thread = threading.Thread(target=following.run, args=[stop], kwargs={"once": True})
        with screen.step("Reading what is new") as step:
            thread.start()
            try:
                while thread.is_alive():
                    thread.join(0.2)
                    step.say(f"{following.read:,} messages")
                    if following.trouble:
                        raise HistoryUnavailable(f"the history can't be brought up to date: {following.trouble}")
            finally:
                stop.set()
                thread.join()
        yield history
