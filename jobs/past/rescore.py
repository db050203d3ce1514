"""Past images of a product through another version, by the stream's own functions, beside the live stream."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.line.follow import event_of
from jobs.past.comparison import Comparison, Judgement, Place, compare, judgement
from jobs.past.rescore_topic import RescoreTopic, led_to
from jobs.past.retained import Past
from pipeline.contracts.broker import Record
from pipeline.contracts.cloudevents import rfc3339
from pipeline.contracts.names import product_name, version_name
from pipeline.kafka.capabilities import Capabilities
from pipeline.settings import Settings
from pipeline.storage.store import ObjectStore
from pipeline.stream.inspector import Inspector
from pipeline.stream.steps import Steps, Work, guarded

CLOCKS_DIFFER = timedelta(hours=1)  # an event may seem older than its image by as much


@dataclass(frozen=True)
class Refused:
    """An image that could not be inspected. ``error_class`` is what a dead letter would have."""

    partition: int
    offset: int
    error_class: str
    message: str


@dataclass(frozen=True)
class Rescore:
    """What is asked for. ``rate``: images a second, 0 for as fast as it goes. ``most``: changed images to name."""

    product: str
    version: str
    topic: str
    since: datetime
    until: datetime | None = None
    rate: float = 10.0
    most: int = 10


@dataclass
class Report:
    """scored: in this run; there_already: in the topic from an earlier one. first, last: the messages' times.
    judged: all of those images, by place.
    """

    rescore: Rescore
    masks_topic: str
    scored: int = 0
    there_already: int = 0
    first: datetime | None = None
    last: datetime | None = None
    refused: list[Refused] = field(default_factory=list)
    judged: dict[Place, Judgement] = field(default_factory=dict)
    comparison: Comparison | None = None

    @property
    def images(self) -> int:
        return self.scored + self.there_already + len(self.refused)

    @property
    def refused_classes(self) -> dict[str, int]:
        return dict(Counter(one.error_class for one in self.refused).most_common())

    def facts(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            **{name: _plain(value) for name, value in asdict(self.rescore).items()},
            "masks_topic": self.masks_topic,
            "images": self.images,
            "scored": self.scored,
            "there_already": self.there_already,
            "first": _plain(self.first),
            "last": _plain(self.last),
            "refused_classes": self.refused_classes,
            "refused": [asdict(one) for one in self.refused],
            "comparison": self.comparison.facts() if self.comparison else None,
        }


def _plain(value: object) -> object:
    return rfc3339(value) if isinstance(value, datetime) else value


class Pace:
    """Lets ``per_s`` images a second through; what a slow batch left over is not made up for afterwards."""

    def __init__(
        self, per_s: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._per_s, self._clock, self._sleep = per_s, clock, sleep
        self._free_at = clock()

    def spend(self, images: int) -> None:
        """Wait until so many may begin."""
        if not self._per_s:
            return
        wait_s = self._free_at - self._clock()
        if wait_s > 0:
            self._sleep(wait_s)
        self._free_at = max(self._free_at, self._clock()) + images / self._per_s

    def batch(self, most: int) -> int:
        """Images to score at once: about a second's, so that the live stream never waits long for the machine."""
        return min(most, max(1, int(self._per_s))) if self._per_s else most


def rescore(
    asked: Rescore,
    settings: Settings,
    store: ObjectStore,
    *,
    broker: Capabilities,
    on_progress: Callable[[int, int, Report], None] = lambda *_: None,
) -> Report:
    """Score and publish what is not in the topic yet.

    Raises:
        NameRefused, UnknownVersion, model.ModelError, TopicRefused: nothing was published.
        StoreUnavailable, BrokerError: the same again goes on where this ended.
    """
    led = led_to(settings, asked.topic)
    key = f"{product_name(asked.product)}/{version_name(asked.version)}"
    inspector = Inspector(led, store)
    inspector.engine.warm(key)  # first of all: a version that is not there leaves no topic behind
    report, pace = Report(asked, led.topics.masks), Pace(asked.rate)
    with (
        RescoreTopic(led, asked.product, asked.version, broker) as target,
        ThreadPoolExecutor(led.stream.decode_threads, thread_name_prefix="decode") as pool,
    ):
        judged = target.judged()
        size = pace.batch(led.stream.batch_images)
        with Past(
            led, led.topics.images, exact=broker.exact, since=asked.since, until=asked.until, at_once=size
        ) as past:
            for batch in _batches(past, asked.product, size):
                todo = [record for record in batch if place(record) not in judged]
                report.judged.update({place: judged[place] for place in map(place, batch) if place in judged})
                pace.spend(len(todo))
                works = [Work.of(record) for record in todo]
                inspect(works, inspector, asked.version, pool)
                target.publish([message for work in works for message in work.messages])
                _count(report, batch, works)
                on_progress(*past.progress, report)
    return report


def compare_with_live(
    report: Report,
    settings: Settings,
    *,
    broker: Capabilities,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Comparison:
    """What the rescored images' live events said; of several events of an image the last one counts."""
    asked = report.rescore
    before: dict[Place, Judgement] = {}
    since = asked.since - CLOCKS_DIFFER
    with Past(settings, settings.topics.events, exact=broker.exact, since=since) as past:
        for records in past.batches():
            for record in records:
                if _of_product(record, asked.product):
                    event = event_of(record)
                    if event.source.topic == settings.topics.images:
                        before[event.source.partition, event.source.offset] = judgement(event)
            on_progress(*past.progress)
    report.comparison = compare(before, report.judged, asked.most)
    return report.comparison


def inspect(works: Sequence[Work], inspector: Inspector, version: str, pool: ThreadPoolExecutor) -> None:
    """The steps of the stream by a version that is given.

    Raises:
        StoreUnavailable: nothing is wrong with the images.
    """
    steps = Steps(inspector)

    def read(work: Work) -> None:
        work.version = version
        steps.capture(work)
        steps.decode(work)

    def each(name: str, step: Callable[[Work], None]) -> None:
        list(pool.map(lambda work: guarded(name, step, work), [work for work in works if not work.error]))

    each("reading", read)
    steps.score([work for work in works if not work.error])
    each("cut", steps.cut)


def place(record: Record) -> Place:
    return record.partition, record.offset


def _judged(work: Work) -> Judgement:
    assert work.captured
    assert work.scored
    return Judgement(work.captured.envelope.id, work.version, work.scored.verdict, work.scored.normalised_score)


def _batches(past: Past, product: str, size: int) -> Iterator[list[Record]]:
    """The product's records, told by the header alone: claim checks of other products need not be redeemed.

    A batch is empty where a poll brought too little for one, so that progress shows all the same.
    """
    waiting: list[Record] = []
    for records in past.batches():
        waiting += [record for record in records if _of_product(record, product)]
        while len(waiting) >= size:
            yield waiting[:size]
            del waiting[:size]
        yield []
    yield waiting


def _of_product(record: Record, product: str) -> bool:
    return any(name.lower() == "ce_subject" and value == product.encode() for name, value in record.headers)


def _count(report: Report, batch: Sequence[Record], works: Sequence[Work]) -> None:
    if not batch:
        return
    refused = [Refused(*place(work.record), work.error.error_class, str(work.error)) for work in works if work.error]
    report.refused += refused
    report.scored += len(works) - len(refused)
    report.there_already += len(batch) - len(works)
    report.judged.update({place(work.record): _judged(work) for work in works if not work.error})
    now_ms = time.time() * 1000  # the broker's timestamp may be the producer's own, and anything
    times = [datetime.fromtimestamp(min(max(0, record.timestamp_ms), now_ms) / 1000, UTC) for record in batch]
    report.first = min(times if report.first is None else [report.first, *times])
    report.last = max(times if report.last is None else [report.last, *times])
