"""An audit on real servers: reads the topics in the order in which the count can be trusted."""

from collections.abc import Callable

from jobs.audit.books import Books
from jobs.audit.count import count
from jobs.audit.log import Log, committed_offsets
from jobs.audit.report import Audit
from jobs.audit.window import Window
from jobs.line.deploy import delivery
from jobs.session.progress import Screen
from pipeline.contracts.broker import Record
from pipeline.settings import Settings
from pipeline.storage.store import S3Store

# Outcomes are looked for from so long before the window on: the clocks of cameras and replicas may differ.
CLOCKS_MS = 3_600_000


def run_audit(settings: Settings, window: Window, screen: Screen) -> Audit:
    """Read and count.

    Committed offsets first, then images, then events and dead letters: whatever lies below a committed offset has its
    outcome by then. Masks after events, so that each event's mask is there; at last the events that came meanwhile,
    so that each mask's event is.

    Raises:
        BrokerError, StoreUnavailable: a server does not answer, or a topic can't be read to its end.
    """
    store, topics = S3Store(settings.s3), settings.topics
    broker = delivery(settings)
    # A broker that tells offsets wrong is read from the beginning, and the window is told by the records' times.
    begin_ms = window.since_ms if broker.end_offsets_exact else None
    books = _images(settings, window, screen, begin_ms)
    after = _outcomes(settings, books, screen, topics.events, books.enter_event, begin_ms)
    _outcomes(settings, books, screen, topics.deadletters, books.enter_letter, begin_ms)
    _outcomes(settings, books, screen, topics.masks, books.enter_picture, begin_ms)
    with screen.step(f"Reading what came to {topics.events} meanwhile") as step, Log(settings, topics.events) as log:
        log.go_to(after)
        for record in log.everything(step.advance):
            books.enter_event(record, late=True)
    with screen.step("Counting, and looking for objects in S3") as step:
        return count(books, settings, store, exactly_once=broker.aborts_hidden, on_object=step.advance)


def _images(settings: Settings, window: Window, screen: Screen, begin_ms: int | None) -> Books:
    topic = settings.topics.images
    with screen.step(f"Reading {topic}") as step, Log(settings, topic) as log:
        committed = committed_offsets(settings, topic, log.partitions())
        books = Books(topic, settings.s3.bucket, window, committed, log.topic_id)
        if begin_ms is not None:
            log.go_to_time(begin_ms)
        for record in log.everything(step.advance):
            if not books.enter_image(record):
                log.leave(record.partition)
        books.note_starts(topic, log.starts())  # now, for the broker may have deleted some meanwhile
        books.committed_since = committed_offsets(settings, topic, log.partitions())
        return books


def _outcomes(
    settings: Settings, books: Books, screen: Screen, topic: str, enter: Callable[[Record], None], begin_ms: int | None
) -> dict[int, int]:
    """Returns where the reading ended."""
    with screen.step(f"Reading {topic}") as step, Log(settings, topic) as log:
        books.note_starts(topic, log.starts())
        if begin_ms is not None:
            log.go_to_time(begin_ms - CLOCKS_MS)
        for record in log.everything(step.advance):
            enter(record)
        return log.positions()
