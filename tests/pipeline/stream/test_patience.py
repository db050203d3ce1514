"""Waiting is told rightly: for whom, why, and for how long; and it is never taken for a fault."""

import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pipeline.errors import ClaimMissing, StoreUnavailable
from pipeline.fakes import MemoryStore
from pipeline.settings import Settings
from pipeline.stream import patience, stages, worker
from pipeline.stream.patience import Patience, Stopped
from tests.pipeline.line import Line, running
from tests.pipeline.tiny import PRODUCT, texture

IMAGES = 16


def test_a_store_that_answers_late_does_not_silence_the_worker(
    objects: dict[str, bytes], eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose masks take 5 s each, one after another, is at it for longer than the heartbeat's timeout."""
    late_s = 0.0
    troubles = []

    class LateStore(MemoryStore):
        def put(self, *args: object) -> None:
            nonlocal late_s
            super().put(*args)  # type: ignore[arg-type]
            late_s += 5.0
            troubles.append(line.worker.trouble())

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s)
    for module in (worker, stages, patience):
        monkeypatch.setattr(module, "time", clock)
    chosen = Settings.from_values(
        {
            "engine": {"device": "cpu", "threads": 1, "backend": "torch"},
            "stream": {"batch_images": IMAGES, "decode_threads": 1},
            "limits": {"inline_bytes": 10},
        }
    )
    line = Line(LateStore(objects=dict(objects)), chosen)
    line.inspector.champions.version(PRODUCT)
    line.send(*(texture(number) for number in range(IMAGES)))
    with running(line):
        eventually(line.finished, within_s=60)
    assert late_s > chosen.stream.heartbeat_timeout_s
    assert troubles == [None] * IMAGES


class Asking:
    """A thread that asks a store, which refuses until :attr:`answer` is set."""

    def __init__(self, shared: Patience) -> None:
        self.answer: object = None
        self.raised: Exception | None = None
        self._shared = shared
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._shared.with_store(self._ask)
        except (ClaimMissing, Stopped) as error:
            self.raised = error

    def _ask(self) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            raise StoreUnavailable("S3 refused to write 'x': AccessDenied: Access Denied.")
        return self.answer

    def join(self) -> None:
        self._thread.join(90)
        assert not self._thread.is_alive()


def test_one_threads_answer_does_not_hide_that_another_waits(
    eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Where S3 lets the worker read but not write, reading goes on for a while."""
    shared = Patience()
    with caplog.at_level(logging.WARNING):
        asking = Asking(shared)
        eventually(lambda: shared.waiting_for == "S3")
        for _ in range(5):
            assert shared.with_store(lambda: "read") == "read"
            assert shared.waiting_for == "S3"
            assert "AccessDenied" in shared.reason
        asking.answer = "written"
        asking.join()
    assert (shared.waiting_for, shared.reason) == ("", "")
    assert len(caplog.records) == 1


def test_a_wait_that_ends_in_a_dead_letter_is_over(eventually: Callable[..., None]) -> None:
    shared = Patience()
    asking = Asking(shared)
    eventually(lambda: shared.waiting_for == "S3")
    asking.answer = ClaimMissing("no such object")
    asking.join()
    assert isinstance(asking.raised, ClaimMissing)
    assert shared.waiting_for == ""


def test_a_long_wait_is_told_again_with_the_reason_of_now(
    eventually: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SAY_AGAIN_S", 0.0)
    shared = Patience()
    with caplog.at_level(logging.WARNING):
        asking = Asking(shared)
        eventually(lambda: len(caplog.records) >= 1)
        asking.answer = StoreUnavailable("S3 does not answer")
        eventually(lambda: "does not answer" in caplog.records[-1].getMessage())
    assert shared.reason == "S3 does not answer"
    shared.stopping.set()
    asking.join()
    assert isinstance(asking.raised, Stopped)
