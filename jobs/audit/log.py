"""Reading a topic up to its end as it is now: everything that is there, and not what happens to come in time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

from kafka import TopicPartition

from jobs.line.follow import Follower
from pipeline.contracts.broker import Record
from pipeline.errors import BrokerError
from pipeline.kafka.attempts import Attempts
from pipeline.kafka.clients import broker_answers, make_consumer
from pipeline.settings import Settings

ASK_AFTER_S = 5.0
ANSWER_MS = 15_000
# Apache Kafka looks every 10 s for transactions that have run out of time.
GRACE_S = 30.0


class Log(Follower):
    """One topic, from its beginning unless told otherwise."""

    def __init__(self, settings: Settings, topic: str) -> None:
        super().__init__(settings, topic, from_beginning=True)
        self._topic = topic
        self._all = sorted(self._consumer.assignment())
        self._left = {tp.partition for tp in self._all}

    def partitions(self) -> list[int]:
        return sorted(tp.partition for tp in self._all)

    def starts(self) -> dict[int, int]:
        """The first offset of each partition that the broker still keeps."""
        with broker_answers(self._settings):
            return {tp.partition: offset for tp, offset in self._consumer.beginning_offsets(self._all).items()}

    def positions(self) -> dict[int, int]:
        """The offset of each partition that is read next."""
        with broker_answers(self._settings):
            return {tp.partition: self._consumer.position(tp) for tp in self._all}

    @property
    def topic_id(self) -> str:
        """ "" where the broker gives topics none."""
        return str(self._consumer._client.cluster.topic_id(self._topic) or "")

    def go_to(self, positions: Mapping[int, int]) -> None:
        for partition, offset in positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def go_to_time(self, time_ms: int) -> None:
        """To the first record of each partition that is not older; only on a broker that tells offsets right."""
        with broker_answers(self._settings):
            found = self._consumer.offsets_for_times(dict.fromkeys(self._all, max(time_ms, 0)))
            for tp in self._all:
                if found.get(tp) is None:
                    self._consumer.seek_to_end(tp)
                else:
                    self._consumer.seek(tp, found[tp].offset)

    def leave(self, partition: int) -> None:
        """Nothing more of this partition is wanted."""
        if partition in self._left:
            self._left.remove(partition)
            self._consumer.pause(TopicPartition(self._topic, partition))

    def everything(self, on_progress: Callable[[int, int], None] = lambda _done, _of: None) -> Iterator[Record]:
        """Each record from the present position to the end. Call it once.

        The end of a partition is the high watermark that comes with its first fetch, which every broker tells right.
        It counts records of transactions that are open, and those are waited for.

        Raises:
            BrokerUnavailable: the broker does not answer.
            BrokerError: a transaction stays open, a partition has no leader, or a record can't be read.
        """
        begins, ends = self.positions(), dict[int, int]()
        positions = begins
        moved = asked = time.monotonic()
        while self._left:
            records, before = self.poll(), positions
            for tp in self._all:
                if (end := self._consumer.highwater(tp)) is not None:
                    ends.setdefault(tp.partition, end)
            positions = self.positions()
            for partition, end in ends.items():
                if positions[partition] >= end:
                    self.leave(partition)
            yield from records
            read = sum(min(positions[partition], end) - begins[partition] for partition, end in ends.items())
            on_progress(read, sum(end - begins[partition] for partition, end in ends.items()))
            now = time.monotonic()
            if positions != before:
                moved = now
            elif now - moved > self._patience_s:
                raise BrokerError(self._stuck(positions, ends))
            elif now - max(moved, asked) > ASK_AFTER_S:
                self.starts()  # a consumer waits without a word for a broker that is gone; this asks it
                asked = now

    @property
    def _patience_s(self) -> float:
        return self._settings.kafka.transaction_timeout_ms / 1000 + GRACE_S

    def _stuck(self, positions: Mapping[int, int], ends: Mapping[int, int]) -> str:
        partition = min(self._left)
        where = f"{self._topic} partition {partition}"
        if partition not in ends:
            return f"{where} gave no answer for {self._patience_s:.0f} s: has it a leader?"
        return (
            f"{where} stands still at offset {positions[partition]} of {ends[partition]} for {self._patience_s:.0f} s: "
            "a transaction is open there, longer than kafka.transaction_timeout_ms. Which producer holds it?"
        )


def committed_offsets(settings: Settings, topic: str, partitions: Sequence[int]) -> dict[int, int | None]:
    """The offset of each partition that the replicas' group has committed; None where it has not, or of a topic of that
    name that was made anew since.

    Asked by a consumer and not by an admin client, which gives up while a broker that has just started looks for the
    group's coordinator. It does not join the group.
    """
    with broker_answers(settings), closing(make_consumer(settings, group_id=settings.kafka.group)) as consumer:
        consumer.partitions_for_topic(topic)
        topic_id = str(consumer._client.cluster.topic_id(topic) or "")
        found = {
            number: consumer.committed(TopicPartition(topic, number), metadata=True, timeout_ms=ANSWER_MS)
            for number in partitions
        }
        return {
            number: one.offset if one is not None and Attempts.read(one.metadata).topic in ("", topic_id) else None
            for number, one in found.items()
        }
