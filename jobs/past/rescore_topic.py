"""The topic that a rescore writes to, and the one of its masks. What lies there already is its own ledger."""

import re

from kafka import KafkaProducer
from kafka.errors import KafkaError

from jobs.line.follow import event_of
from jobs.past.comparison import Judgement, Place, judgement
from jobs.past.retained import Past
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.events import IMAGE_INSPECTED
from pipeline.errors import BrokerError, LinewatchError, NameRefused
from pipeline.kafka.capabilities import Capabilities
from pipeline.kafka.clients import broker_answers, make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings, Topics

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,199}")
FLUSH_TIMEOUT_S = 15


class TopicRefused(LinewatchError):
    """What lies on the topic already is not a rescore's."""


class _Elsewhere(Topics):
    """The topics of the settings, with events and masks led away from the live ones."""

    target: str

    @property
    def events(self) -> str:
        return self.target

    @property
    def masks(self) -> str:
        return f"{self.target}.masks"


def led_to(settings: Settings, topic: str) -> Settings:
    """Settings under which events go to ``topic`` and masks to ``topic.masks``, by the stream's own functions.

    Raises:
        NameRefused: it can't name a topic, or it would be one of the live ones.
    """
    if not NAME.fullmatch(topic):
        raise NameRefused(
            f"{topic[:80]!r} can't name a topic: use 1 to 200 letters, digits, '.' or '-', first a letter or digit"
        )
    topics = settings.topics
    live = (topics.images, topics.events, topics.masks, topics.feedback, topics.releases, topics.deadletters)
    led = settings.model_copy(update={"topics": _Elsewhere(**topics.model_dump(), target=topic)})
    for name in (led.topics.events, led.topics.masks):
        if name in live:
            raise NameRefused(
                f"{name} is a topic of the live stream: give the rescore one of its own, such as "
                f"{topics.prefix}.rescore.bottle"
            )
    return led


class RescoreTopic:
    """Takes a rescore's messages, a batch at a time, and knows which images it has them of.

    No offsets are committed: an image is done when its event is there. Where the broker hides aborted transactions a
    batch is one, under an id made of topic, product and version. Opening it fences a run that still goes on and ends
    what a dead one left open; so what is read afterwards is all there is, and nothing comes twice. Elsewhere a batch
    that a dead run has begun may be there in part, or once more, under the same event ids.
    """

    def __init__(self, settings: Settings, product: str, version: str, broker: Capabilities) -> None:
        """
        Args:
            settings: of :func:`led_to`.
        """
        self._settings, self._product, self._version, self._broker = settings, product, version, broker
        self.name = settings.topics.events
        ensure_topics(settings, only=(settings.topics.events, settings.topics.masks))
        options = {}
        if broker.aborts_hidden:
            options = {
                "transactional_id": f"{settings.kafka.group}-rescore-{self.name}-{product}-{version}",
                "transaction_timeout_ms": settings.kafka.transaction_timeout_ms,
            }
        with broker_answers(settings):
            self._producer: KafkaProducer = make_producer(settings, **options)
            if broker.aborts_hidden:
                self._producer.init_transactions()

    def judged(self) -> dict[Place, Judgement]:
        """What this version says already of the product's images.

        Raises:
            TopicRefused: something else lies on the topic.
        """
        found: dict[Place, Judgement] = {}
        with Past(self._settings, self.name, exact=self._broker.exact) as past:
            for record in (record for records in past.batches() for record in records):
                headers = {name.lower(): value for name, value in record.headers}
                if headers.get("ce_type") != IMAGE_INSPECTED.encode():
                    raise TopicRefused(f"{self._place(record)} is no inspection event: choose another topic")
                event = event_of(record)
                if event.source.topic != self._settings.topics.images:
                    raise TopicRefused(
                        f"{self._place(record)} is an event of an image on {event.source.topic}, and not on "
                        f"{self._settings.topics.images}: choose another topic"
                    )
                if (event.product, event.model_version) == (self._product, self._version):
                    found[event.source.partition, event.source.offset] = judgement(event)
        return found

    def publish(self, messages: list[Outgoing]) -> None:
        """All of them or none, where transactions work.

        Raises:
            BrokerError: the broker did not take them.
        """
        if not messages:
            return
        # kafka-python raises AssertionError and RuntimeError too, from a producer in a state that forbids the call.
        try:
            if self._broker.aborts_hidden:
                self._producer.begin_transaction()
            sent = [self._producer.send(m.topic, m.value, m.key, list(m.headers)) for m in messages]
            self._producer.flush(timeout=FLUSH_TIMEOUT_S)
            for future in sent:
                future.get(timeout=FLUSH_TIMEOUT_S)
            if self._broker.aborts_hidden:
                self._producer.commit_transaction()
        except (KafkaError, AssertionError, RuntimeError, OSError) as error:
            raise BrokerError(
                f"Kafka at {self._settings.kafka.bootstrap_servers} did not take a batch for {self.name} "
                f"({type(error).__name__}: {error}). If no other run of the same rescore took over, run it again: "
                "it goes on where this one stopped"
            ) from error

    def close(self) -> None:
        """An open transaction is left to the next run, or to the broker's timeout."""
        try:
            self._producer.close(timeout=2)
        except KafkaError:
            self._producer._sender.force_close()  # else it would go on trying

    def __enter__(self) -> "RescoreTopic":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self, record: Record) -> str:
        return f"{self.name} is no topic of a rescore: its message at {record.partition}@{record.offset}"
