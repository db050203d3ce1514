"""A line on real servers that has inspected its images, and a second version that has not: what looking back needs."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from jobs.line.follow import Follower, event_of
from jobs.past.rescore import Report, Rescore, compare_with_live, rescore
from jobs.past.retained import Past
from model import ModelBundle
from pipeline.contracts.broker import Record
from pipeline.contracts.events import InspectionEvent
from pipeline.kafka.capabilities import Capabilities, probe
from pipeline.kafka.clients import make_producer
from pipeline.kafka.session import KafkaSession
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.store import S3Store
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker
from tests.conftest import Plant
from tests.pipeline.tiny import message, publish, texture

SPOTS = 4
GOOD = 12


@dataclass
class InspectedLine:
    """``first`` has scored all images; ``second`` is the same model, twice as strict."""

    plant: Plant
    settings: Settings
    store: S3Store
    broker: Capabilities
    first: str
    second: str
    begun: datetime

    def rescore(self, topic: str, **changes: object) -> Report:
        asked = Rescore("bottle", self.second, topic, self.begun - timedelta(hours=1), rate=0.0)
        asked = replace(asked, **changes)  # type: ignore[arg-type]
        report = rescore(asked, self.settings, self.store, broker=self.broker)
        compare_with_live(report, self.settings, broker=self.broker)
        return report

    def read(self, topic: str) -> list[Record]:
        with Past(self.settings, topic, exact=self.broker.exact) as past:
            return [record for batch in past.batches() for record in batch]

    def events(self, topic: str) -> list[InspectionEvent]:
        return [event_of(record) for record in self.read(topic)]

    def live(self) -> dict[str, InspectionEvent]:
        """By image id."""
        return {event.image_id: event for event in self.events(self.settings.topics.events)}


def inspected_line(plant: Plant, bundle: ModelBundle, eventually: Callable[..., None]) -> InspectedLine:
    settings = plant.settings(stream={"batch_images": 4}, engine={"device": "cpu", "threads": 1})
    ensure_topics(settings)
    store, broker = plant.store(settings), probe(settings)
    first = publish(store, bundle)
    publish(store, bundle, product="cap")
    second = publish(store, bundle, serve=False, calibration=_stricter(bundle))
    begun = datetime.now(UTC)
    images = [
        message(f"img-{n:02d}", texture(100 + n, spot=n < SPOTS), camera=f"/plant/cam{n % 3}") for n in range(GOOD)
    ]
    images += [message("broken", b"no image"), message("cap-1", texture(1), product="cap")]
    with closing(make_producer(settings)) as producer:
        for one in images:
            producer.send(settings.topics.images, one.value, one.key, list(one.headers)).get(timeout=15)
    session = partial(KafkaSession, settings, rank=lambda: 0, exactly_once=broker.aborts_hidden)
    worker = StreamWorker(Inspector(settings, store), session)
    worker.start()
    try:
        with Follower(settings, settings.topics.events, settings.topics.deadletters, from_beginning=True) as follower:
            seen: list[Record] = []
            eventually(lambda: seen.extend(follower.poll()) or len(seen) >= len(images), within_s=60)
    finally:
        worker.stop()
    return InspectedLine(plant, settings, store, broker, first, second, begun)


def _stricter(bundle: ModelBundle) -> dict[str, float]:
    """Half of every level, so that every normalised score is twice what it was."""
    levels = ("threshold", "review_low", "review_high", "pixel_threshold")
    facts = bundle.manifest.calibration.model_dump()
    return {name: value / 2 if name in levels else value for name, value in facts.items()}
