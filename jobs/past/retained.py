"""What a topic holds already: read once from a moment on, without a group, up to an end that is known at the start."""

import time
from collections.abc import Iterator
from datetime import datetime

from kafka import KafkaConsumer, TopicPartition

from jobs.line.follow import assignable, records_of
from pipeline.contracts.broker import Record
from pipeline.errors import BrokerUnavailable
from pipeline.kafka.clients import broker_answers, make_consumer
from pipeline.settings import Settings

POLL_S = 0.2
SILENCE_S = 30.0
INEXACT_SILENCE_S = 5.0


class Past:
    """The messages of each partition from the first that is not older than ``since`` to the first that is not older
    than ``until``, or to the partition's end when reading began. Used from one thread.

    exact: whether the broker tells offsets of times and ends right (:mod:`pipeline.kafka.capabilities`).
    Where it does not, everything is read, messages tell their own times, and the end is the high watermark that the
    first fetch brings.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        exact: bool,
        since: datetime | None = None,
        until: datetime | None = None,
        at_once: int = 500,
    ) -> None:
        self._settings, self._topic, self._exact = settings, topic, exact
        self._since_ms, self._until_ms = _milliseconds(since), _milliseconds(until)
        with broker_answers(settings):
            self._consumer: KafkaConsumer = make_consumer(settings, max_poll_records=at_once)
            self._partitions = assignable(self._consumer, settings, topic)
            self._consumer.assign(self._partitions)
            self._begins, self._ends = self._window() if exact else (self._first_offsets(), {})
            for tp, offset in self._begins.items():
                self._consumer.seek(tp, offset)
        self._reached = dict(self._begins)
        self._begun = set(self._partitions) if exact else set()

    @property
    def progress(self) -> tuple[int, int]:
        """Offsets read, and offsets to read; 0 of 0 while the broker has not said yet where the end is."""
        if len(self._ends) < len(self._partitions):
            return 0, 0
        of = sum(max(0, self._ends[tp] - self._begins[tp]) for tp in self._partitions)
        return min(of, sum(self._reached[tp] - self._begins[tp] for tp in self._partitions)), of

    def batches(self) -> Iterator[list[Record]]:
        """All of it, in order per partition, and then an end.

        Raises:
            BrokerUnavailable: the broker does not answer, or sends nothing although there is more.
        """
        open_ones = set(self._partitions)
        silence_s = 0.0
        while True:
            open_ones -= {tp for tp in open_ones if self._finished(tp)}
            if not open_ones:
                return
            begun = time.monotonic()
            with broker_answers(self._settings):
                fetched = self._consumer.poll(timeout_ms=int(POLL_S * 1000))
            self._learn_ends()
            silence_s = 0.0 if fetched else silence_s + time.monotonic() - begun
            if silence_s > (SILENCE_S if self._exact else INEXACT_SILENCE_S):
                if not self._exact:  # its ends may be wrong too
                    return
                raise BrokerUnavailable(
                    f"Kafka at {self._settings.kafka.bootstrap_servers} sends nothing more of {self._topic}, "
                    f"and {len(open_ones)} partitions are not read to their end: is it running?"
                )
            records = [record for record in records_of(fetched) if self._within(record)]
            for tp in open_ones:
                self._reached[tp] = self._consumer.position(tp)
            if records:
                yield records

    def close(self) -> None:
        self._consumer.close(autocommit=False)

    def __enter__(self) -> "Past":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Inside

    def _window(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        ends: dict[TopicPartition, int] = dict(self._consumer.end_offsets(self._partitions))
        if self._until_ms is not None:
            ends = self._at(self._until_ms, ends)
        return (self._first_offsets() if self._since_ms is None else self._at(self._since_ms, ends)), ends

    def _at(self, time_ms: int, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The first offsets whose messages are not older; the ends where there is none."""
        found = self._consumer.offsets_for_times(dict.fromkeys(self._partitions, time_ms))
        return {tp: min(end, found[tp].offset) if found.get(tp) else end for tp, end in ends.items()}

    def _first_offsets(self) -> dict[TopicPartition, int]:
        return dict(self._consumer.beginning_offsets(self._partitions))

    def _learn_ends(self) -> None:
        for tp in self._partitions:
            if tp not in self._ends and (mark := self._consumer.highwater(tp)) is not None:
                self._ends[tp] = mark

    def _finished(self, tp: TopicPartition) -> bool:
        if tp not in self._ends or self._reached[tp] < self._ends[tp]:
            return False
        self._consumer.pause(tp)  # what comes after the end need not be fetched
        return True

    def _within(self, record: Record) -> bool:
        tp = TopicPartition(record.topic, record.partition)
        if not self._exact:
            if record.timestamp_ms >= (self._since_ms or 0):
                self._begun.add(tp)
            if self._until_ms is not None and record.timestamp_ms >= self._until_ms:
                self._ends[tp] = min(self._ends[tp], record.offset)
        return tp in self._begun and record.offset < self._ends[tp]


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else max(0, int(time.timestamp() * 1000))
