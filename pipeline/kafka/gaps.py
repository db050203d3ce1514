"""What the broker deleted before anybody read it: by retention, by delete-records, with the topic.

A client of Kafka goes on at the oldest message there is, without a word. So the offsets where reading goes on are
compared with those where it ought to, and what lies between becomes a dead letter that says how much it was.
"""

import time
from dataclasses import dataclass, field

from kafka import KafkaConsumer, TopicPartition

from pipeline.contracts.broker import Record
from pipeline.errors import DeletedUnread

RETENTION = "the broker has deleted {} messages that nobody had read, offsets {} to {}: retention, or delete-records"
LEFT_S = 15.0
ANEW = "{} was made anew, and {} messages of the one before were not read, offsets {} to {}"


@dataclass
class Place:
    """Where a member is in a partition. All are offsets.

    next: what is read next. after_last: behind the last message that was handed out. end: of the log, as last seen.
    topic_id: of the topic that these are offsets of; "" where the broker gives topics none. left_at: when another
    member got the partition, of time.monotonic.
    """

    committed: int
    next: int
    after_last: int
    end: int = 0
    topic_id: str = ""
    left_at: float | None = None

    @property
    def lag(self) -> int:
        """Messages behind the committed offset; 0 where only the marks that end transactions are left."""
        if self.next >= self.end and self.committed >= self.after_last:
            return 0
        return max(0, self.end - self.committed)


@dataclass
class Places:
    """Of all partitions that a member has, or had when it last looked."""

    topic: str
    of: dict[TopicPartition, Place] = field(default_factory=dict)

    def moved(self, tp: TopicPartition, fetched: int | None, last: int | None, position: int | None) -> str:
        """Enter what a poll has brought: the first and the last offset, and where the client is now.

        Returns "on", "gap" where it jumped ahead, or "back" where it begins at an earlier offset again.
        """
        place = self.of[tp]
        came = fetched if fetched is not None else position
        if came is None:
            return "on"  # the client is looking for the place
        found = "on" if came == place.next else "gap" if came > place.next else "back"
        if found == "on" and fetched is not None and last is not None:
            place.next = place.after_last = last + 1
        return found

    def gap(self, tp: TopicPartition, start: int, came: int, lease: int) -> Record | None:
        """What a jump to ``came`` skipped, where the log begins at ``start`` now; None where it skipped no message but
        marks of transactions.
        """
        place = self.of[tp]
        first, behind = place.next, min(start, came)
        place.next = came
        if behind <= first:
            return None
        place.after_last = behind
        messages = behind - first
        why = DeletedUnread(RETENTION.format(messages, first, behind - 1), first, messages, place.topic_id)
        return Record(tp.topic, tp.partition, behind - 1, None, None, (), int(time.time() * 1000), lease, error=why)

    def left(self, tp: TopicPartition) -> None:
        """Another member has the partition now, or nobody, because the topic is gone."""
        if place := self.of.get(tp):
            place.left_at = time.monotonic()

    def forget_left(self, topic_id: str) -> None:
        """Those that others have: what is unread there is theirs to tell. Not at once, for a topic that is gone is
        missed later than its partitions are.
        """
        now = time.monotonic()
        for tp, place in list(self.of.items()):
            if place.left_at is not None and now - place.left_at > LEFT_S and topic_id == place.topic_id:
                del self.of[tp]

    def old(self, topic_id: str) -> list[tuple[TopicPartition, DeletedUnread]]:
        """What was left unread of a topic that is another one now; those partitions are forgotten."""
        found = []
        for tp, place in list(self.of.items()):
            if topic_id and place.topic_id and place.topic_id != topic_id:
                del self.of[tp]
                if (messages := place.lag) > 0:
                    why = ANEW.format(self.topic, messages, place.committed, place.end - 1)
                    found.append((tp, DeletedUnread(why, place.committed, messages, place.topic_id)))
        return found


def start_of(consumer: KafkaConsumer, tp: TopicPartition) -> int:
    """The oldest offset that the broker keeps."""
    offset: int = consumer.beginning_offsets([tp])[tp]
    return offset


def position_of(consumer: KafkaConsumer, tp: TopicPartition) -> int | None:
    """Where the client is, without asking the broker; None while it looks for the place."""
    state = consumer._subscription.assignment.get(tp)
    return state.position.offset if state is not None and state.position is not None else None
