"""Whether a consumer has read what was there when it began.

While more comes all the time there is no silence to wait for.
"""

import time

from kafka import KafkaConsumer, TopicPartition

from pipeline.kafka.gaps import position_of


class AsOfNow:
    """Of all partitions that a consumer has. Asked after each poll.

    A partition is read where its position has come to the high watermark that the first fetch from now on brings, which
    each broker tells right, as not each does offsets of ends; or where nothing more of it has come for `quiet_s`, for
    messages may be held back by a transaction that nobody ends.
    """

    def __init__(self, consumer: KafkaConsumer, quiet_s: float) -> None:
        self._consumer, self._quiet_s = consumer, quiet_s
        self._marks: dict[TopicPartition, int] = {}
        self._moved: dict[TopicPartition, tuple[int | None, float]] = {}
        self._read: set[TopicPartition] = set()
        for state in consumer._subscription.assignment.values():
            state.highwater = None  # of a fetch before now

    def reached(self) -> bool:
        self._read |= {tp for tp in self._consumer.assignment() if tp not in self._read and self._is_read(tp)}
        return bool(self._read) and self._read >= set(self._consumer.assignment())

    def _is_read(self, tp: TopicPartition) -> bool:
        position, now = position_of(self._consumer, tp), time.monotonic()
        if tp not in self._marks and (mark := self._consumer.highwater(tp)) is not None:
            self._marks[tp] = mark
        before, since = self._moved.setdefault(tp, (position, now))
        if position != before:
            self._moved[tp] = (position, now)
            since = now
        behind = tp not in self._marks or position is None or position < self._marks[tp]
        return not behind or now - since > self._quiet_s
