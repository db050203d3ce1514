"""Reading the output topics into the database, for as long as one likes: what was read once is never read again."""

import logging
import time
from collections.abc import Callable, Collection
from threading import Event

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from pipeline.contracts.broker import Record
from pipeline.errors import BrokerError, BrokerUnavailable, HistoryOvertaken, HistoryUnavailable
from pipeline.history.database import History, Position, Positions, Skipped
from pipeline.kafka.as_of_now import AsOfNow
from pipeline.kafka.clients import admin_client, broker_answers, make_consumer
from pipeline.kafka.gaps import position_of, start_of
from pipeline.kafka.held_up import HeldUp
from pipeline.settings import Settings

log = logging.getLogger(__name__)
AT_ONCE = 2000
LOOK_S = 10.0
"""Between two looks at which topics and partitions there are."""
QUIET_S = 1.5
"""See `AsOfNow`."""
PATIENCE_S = (0.5, 15.0)
RETENTION = "the broker deleted {} messages before they were read here, offsets {} to {}"
ANEW = "{} was made anew: what was left unread of the one before is gone"
DAY_S = 86_400.0


def followed(settings: Settings) -> tuple[str, ...]:
    """The topics that are kept."""
    topics = settings.topics
    return topics.events, topics.deadletters, topics.releases, topics.feedback


class Following:
    """One follower. `run` is its only call for as long as it lasts; `lag` and `read` are asked from any thread."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        say: Callable[[str], None] = lambda _: None,
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        """at_once: most messages of one transaction of the database."""
        self._settings, self._history, self._say, self._at_once = settings, history, say, at_once
        self._known: Positions = {}
        self._ids: dict[str, str] = {}
        self._looked_at = self._pruned_at = 0.0
        self.read = 0
        """Messages that this follower has written."""
        self.lag: int | None = None
        """Messages that wait, as far as the last fetch tells; None: not known, or no broker or database."""
        self.trouble: str | None = None
        """Why it stands still now, in a line."""

    def run(self, stop: Event, *, once: bool = False) -> None:
        """Follow until `stop`, or `once` to where the topics end now; waits for a broker or a database that is away."""
        wait_s = PATIENCE_S[0]
        while not stop.is_set():
            before = self.read
            try:
                self._follow(stop, once=once)
                return
            except (BrokerError, HistoryUnavailable, HistoryOvertaken) as error:
                self.lag, self.trouble = None, str(error)
                log.warning("%s; tried again in %.1f s", error, wait_s)
                self._say(f"! {error}")
            wait_s = PATIENCE_S[0] if self.read > before else min(PATIENCE_S[1], 2 * wait_s)
            stop.wait(wait_s)

    def _follow(self, stop: Event, *, once: bool) -> None:
        with broker_answers(self._settings):
            # Where a position is out of range, nothing is to be skipped without a word.
            held_up = HeldUp()
            options = {"auto_offset_reset": "none", "max_poll_records": self._at_once}
            consumer = held_up.consumer = make_consumer(self._settings, held_up.note, **options)
            try:
                self._known = self._history.positions()
                self._looked_at = 0.0
                now = AsOfNow(consumer, QUIET_S)
                while not stop.is_set():
                    self._look(consumer)
                    held_up.try_again(paused=False)
                    self._take(consumer)
                    self.trouble = "; ".join(held_up.told().values()) or None
                    if once and now.reached():
                        return
                    self._prune()
            finally:
                consumer.close(autocommit=False)

    def _look(self, consumer: KafkaConsumer) -> None:
        """Take up partitions that are new, and see whether a topic is another one than before."""
        if self._looked_at and time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        names = followed(self._settings)
        self._ids = topic_ids(self._settings, names)
        there = {
            TopicPartition(topic, number) for topic in names for number in consumer.partitions_for_topic(topic) or ()
        }
        if not there:
            raise BrokerUnavailable(
                f"none of the topics {', '.join(names)} is on {self._settings.kafka.bootstrap_servers}: 'linewatch "
                "setup' makes them"
            )
        assigned = set(consumer.assignment())
        if there != assigned:
            consumer.assign(sorted(there))
        for tp in sorted(there):
            before = self._known.get((tp.topic, tp.partition))
            known_id, topic_id = before.topic_id if before else "", self._ids.get(tp.topic, "")
            if before and known_id and topic_id and known_id != topic_id:
                self._begin_anew(tp, topic_id)
            elif tp in assigned:
                continue
            self._seek(consumer, tp)

    def _seek(self, consumer: KafkaConsumer, tp: TopicPartition) -> None:
        """Where the rows end; or at the oldest message, where that is younger, and with a note of what is missing."""
        at = (tp.topic, tp.partition)
        topic_id = self._ids.get(tp.topic, "")
        before, start = self._known.get(at), start_of(consumer, tp)
        if before is None:
            self._known = self._history.skip(_missing(tp, 0, start), self._known, Position(start, topic_id))
        elif before.next < start:
            moved = Position(start, topic_id)
            self._known = self._history.skip(_missing(tp, before.next, start), self._known, moved)
        consumer.seek(tp, self._known[at].next)

    def _begin_anew(self, tp: TopicPartition, topic_id: str) -> None:
        before = self._known[(tp.topic, tp.partition)]
        told = Skipped(tp.topic, tp.partition, before.next, 1, ANEW.format(tp.topic))
        self._known = self._history.skip(told, self._known, Position(0, topic_id))
        self._say(f"! {told.why}")

    def _take(self, consumer: KafkaConsumer) -> int:
        """One fetch into the database; how many messages that was."""
        try:
            fetched = consumer.poll(timeout_ms=200)
        except OffsetOutOfRangeError as error:  # retention was faster, or the topic is another one, and shorter
            for tp in error.args[0]:
                if self._known[(tp.topic, tp.partition)].next >= start_of(consumer, tp):
                    self._begin_anew(tp, self._ids.get(tp.topic, ""))
                self._seek(consumer, tp)
            return 0
        records = [
            Record(tp.topic, tp.partition, m.offset, m.key, m.value, tuple(m.headers or ()), timestamp_ms=m.timestamp)
            for tp, messages in fetched.items()
            for m in messages
        ]
        moved = {}
        for tp in consumer.assignment():
            at, next_ = (tp.topic, tp.partition), position_of(consumer, tp)
            before = self._known[at]
            # Marks of transactions move a position, too.
            if next_ is not None and next_ > before.next:
                moved[at] = Position(next_, self._ids.get(tp.topic, before.topic_id))
        if moved:
            self._known = self._history.write(records, self._known, moved)
        self.read += len(records)
        self.lag = sum(
            max(0, mark - self._known[(tp.topic, tp.partition)].next)
            for tp in consumer.assignment()
            if (mark := consumer.highwater(tp)) is not None
        )
        return len(records)

    def _prune(self) -> None:
        keep = self._settings.history.keep_days
        if keep is None or (self._pruned_at and time.monotonic() - self._pruned_at < DAY_S):
            return
        self._pruned_at = time.monotonic()
        if gone := self._history.prune(round(1000 * (time.time() - keep * DAY_S))):
            self._say(f"{gone} rows are older than {keep} days (history.keep_days), and deleted")


def topic_ids(settings: Settings, names: Collection[str]) -> dict[str, str]:
    """Of those that are there, where the broker gives topics ids."""
    with admin_client(settings) as admin:
        found = admin.describe_topics(list(names))
    return {one["name"]: str(one["topic_id"]) for one in found if one.get("topic_id")}


def _missing(tp: TopicPartition, first: int, start: int) -> Skipped:
    return Skipped(tp.topic, tp.partition, first, start - first, RETENTION.format(start - first, first, start - 1))
