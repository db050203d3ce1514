"""Records of the images topic to finished messages, by one given version and the stream's own functions."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jobs.past.comparison import Judgement, Place
from model import Frame, Scored
from pipeline.contracts.broker import Outgoing, Record
from pipeline.errors import DeadLetter, InspectionFailed, StoreUnavailable
from pipeline.stream.inspector import Inspector
from pipeline.stream.intake import Captured, captured
from pipeline.stream.output import Inspected, output_messages

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """An image that could not be inspected. ``error_class`` is what a dead letter would have."""

    partition: int
    offset: int
    error_class: str
    message: str


@dataclass
class Work:
    """One record on its way to its messages."""

    record: Record
    captured: Captured | None = None
    frame: Frame | None = None
    scored: Scored | None = None
    messages: list[Outgoing] = field(default_factory=list)
    error: Refused | None = None

    def refuse(self, error_class: str, message: str) -> None:
        self.error = Refused(*place(self.record), error_class, message)

    def judgement(self, version: str) -> Judgement:
        assert self.captured
        assert self.scored
        return Judgement(self.captured.envelope.id, version, self.scored.verdict, self.scored.normalised_score)


def inspect(works: Sequence[Work], inspector: Inspector, key: str, pool: ThreadPoolExecutor) -> None:
    """The way of an image as in :mod:`pipeline.stream.stages`, with a version that is given."""

    def read(work: Work) -> None:
        work.captured = captured(work.record, inspector.store, inspector.settings.limits)
        work.frame = inspector.read(work.captured.data, key)

    def finish(work: Work) -> None:
        assert work.captured
        assert work.scored
        findings = inspector.cut(work.scored)
        version = key.partition("/")[2]
        inspected = Inspected(work.captured, version, work.scored, findings, datetime.now(UTC))
        work.messages = output_messages(inspected, inspector.settings, inspector.store)

    list(pool.map(lambda work: _guarded(read, work), works))
    _score([work for work in works if not work.error], inspector, key)
    list(pool.map(lambda work: _guarded(finish, work), [work for work in works if not work.error]))


def _score(works: Sequence[Work], inspector: Inspector, key: str) -> None:
    def score(work: Work) -> None:
        assert work.frame
        (work.scored,) = inspector.score([work.frame], [key])

    try:
        scores = inspector.score([work.frame for work in works if work.frame], [key] * len(works))
    except Exception:
        for work in works:  # find the one that breaks the others
            _guarded(score, work)
        return
    for work, scored in zip(works, scores, strict=True):
        work.scored = scored


def _guarded(step: Callable[[Work], None], work: Work) -> None:
    try:
        step(work)
    except StoreUnavailable:
        raise
    except DeadLetter as error:
        work.refuse(error.error_class, str(error))
    except Exception as error:
        log.info("the image at %s@%s", *place(work.record), exc_info=True)  # --debug shows it; the report counts it
        work.refuse(InspectionFailed.__name__, f"{type(error).__name__}: {error}")


def place(record: Record) -> Place:
    return record.partition, record.offset
