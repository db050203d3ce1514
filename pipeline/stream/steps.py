"""The way of an image, step by step: capture, decode, score, cut. Whoever runs them decides on threads and on waiting.

A step that fails leaves its error with the image, which skips what follows, and nothing of the others.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from model import Frame, Scored
from pipeline.contracts.broker import Outgoing, Record
from pipeline.errors import DeadLetter, InspectionFailed, StoreUnavailable
from pipeline.stream.inspector import Inspector
from pipeline.stream.intake import Captured, captured
from pipeline.stream.output import Inspected, Largest, output_messages, unlimited
from pipeline.stream.patience import Stopped
from pipeline.telemetry import traces

log = logging.getLogger(__name__)
Asking = Callable[[Callable[[], Any]], Any]
"""Runs what asks the store: at once, or again until it answers."""


def at_once(ask: Callable[[], Any]) -> Any:
    return ask()


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
    begun_ns: int = field(default_factory=time.time_ns)
    trace: traces.ImageTrace | None = None

    @classmethod
    def of(cls, record: Record) -> "Work":
        return cls(record, error=record.error)

    @property
    def key(self) -> str:
        """Of the model that scores it."""
        assert self.captured
        return f"{self.captured.envelope.subject}/{self.version}"

    @property
    def about(self) -> dict[str, object]:
        """What log lines and spans of it have in common: by `image` or `trace` all of an image's are found."""
        told: dict[str, object] = {"partition": self.record.partition, "offset": self.record.offset}
        if self.captured:
            envelope = self.captured.envelope
            told |= {"image": envelope.id, "camera": envelope.source, "product": envelope.subject}
            if envelope.traceparent:
                told |= {"traceparent": envelope.traceparent, "trace": traces.trace_id(envelope.traceparent)}
        return told

    @property
    def held_bytes(self) -> int:
        """What it keeps in memory: the message, an image fetched for a claim check, decoded pixels."""
        fetched = len(self.captured.data) if self.captured and self.captured.data is not self.record.value else 0
        return self.record.size + fetched + (self.frame.pixels.nbytes if self.frame else 0)


class Steps:
    """The steps by one inspector. Those of single images may run side by side."""

    def __init__(self, inspector: Inspector, asking: Asking = at_once) -> None:
        self._inspector, self._asking = inspector, asking

    def capture(self, work: Work) -> None:
        limits = self._inspector.settings.limits
        work.captured = self._asking(lambda: captured(work.record, self._inspector.store, limits))
        work.trace = traces.begin(work.captured.envelope.traceparent, work.begun_ns)
        if work.trace:  # what it becomes goes on from this span, as do its log lines
            envelope = replace(work.captured.envelope, traceparent=work.trace.traceparent)
            work.captured = replace(work.captured, envelope=envelope)
            work.trace.done("fetch")

    def decode(self, work: Work) -> None:
        """By the version that the work has."""
        assert work.captured
        data = work.captured.data
        if work.trace:
            work.trace.starts()
        work.frame = self._asking(lambda: self._inspector.read(data, work.key))
        work.captured = replace(work.captured, data=b"")  # decoded: an image fetched for a claim check can go
        if work.trace:
            work.trace.done("decode")

    def score(self, works: Sequence[Work]) -> None:
        """All at once, and where that fails one by one, to find the one that breaks the others."""
        frames = [work.frame for work in works if work.frame]
        traced = [work.trace for work in works if work.trace]
        for trace in traced:
            trace.starts()
        try:
            scores = self._asking(lambda: self._inspector.score(frames, [work.key for work in works])) if works else []
        except (Stopped, StoreUnavailable):
            raise
        except Exception as error:
            if len(works) == 1:
                log.exception("scoring failed", extra=works[0].about)
                works[0].error = InspectionFailed(f"scoring failed: {type(error).__name__}: {error}")
                return
            for work in works:
                self.score([work])
            return
        for work, scored in zip(works, scores, strict=True):
            work.scored = scored
        for trace in traced:
            trace.done("score")

    def cut(self, work: Work, largest: Largest = unlimited) -> None:
        assert work.captured
        assert work.scored
        if work.trace:
            work.trace.starts()
        findings = self._inspector.cut(work.scored)
        inspected = Inspected(work.captured, work.version, work.scored, findings, datetime.now(UTC))
        settings, store = self._inspector.settings, self._inspector.store
        work.messages = self._asking(lambda: output_messages(inspected, settings, store, largest))
        if work.trace:
            work.trace.done("cut")


def guarded(name: str, step: Callable[[Work], None], work: Work) -> None:
    """A step of one image; what it raises of the image is kept with it.

    Raises:
        StoreUnavailable, Stopped: nothing is wrong with the image.
    """
    try:
        step(work)
    except DeadLetter as error:
        work.error = error
    except (Stopped, StoreUnavailable):
        raise
    except Exception as error:
        log.exception("%s failed", name, extra=work.about)
        work.error = InspectionFailed(f"{name} failed: {type(error).__name__}: {error}")
