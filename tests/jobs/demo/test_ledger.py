"""The demo's books are closed once every event has its pictures."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from jobs.demo import ledger as books
from jobs.demo.ledger import Ledger
from pipeline.contracts.broker import Record
from tests.jobs.fabricated import Stream

LATE_S = 2.0


def test_pictures_that_come_after_their_events_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transactions a replica may die between the two; its heir publishes both again."""
    stream = Stream()
    image = stream.image()
    event, mask = stream.event(image), stream.mask(image)

    class Follower:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def follow(self, stop: threading.Event) -> Iterator[Record]:
            yield event
            stop.wait(LATE_S)
            if not stop.is_set():
                yield mask

        def close(self) -> None:
            pass

    monkeypatch.setattr(books, "Follower", Follower)
    with closing(Ledger(stream.settings, stream.store)) as ledger:
        while not ledger.seen:
            time.sleep(0.01)
        ledger.settle(quiet_s=10)
    assert ledger.without_mask() == 0
