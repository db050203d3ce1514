"""Partitions that are held up by a batch that can't be read: fetched again now and then, while all others go on."""

import logging
import time

from kafka import KafkaConsumer, TopicPartition

from pipeline.kafka.gaps import position_of
from pipeline.kafka.reading import UnreadableBatch

log = logging.getLogger(__name__)
READ_AGAIN_S = 5.0


class HeldUp:
    """The consumer must be set before the first batch is noted."""

    consumer: KafkaConsumer

    def __init__(self) -> None:
        self._batches: dict[TopicPartition, UnreadableBatch] = {}
        self._again_at: dict[TopicPartition, float] = {}

    @property
    def partitions(self) -> set[TopicPartition]:
        return set(self._batches)

    def told(self) -> dict[int | None, str]:
        """What can't be read, by partition; from any thread."""
        return {tp.partition: batch.told(tp) for tp, batch in dict(self._batches).items()}

    def note(self, tp: TopicPartition, batch: UnreadableBatch) -> None:
        if tp not in self._batches:
            log.error("%s", batch.told(tp))
        self._batches[tp] = batch
        self._again_at[tp] = time.monotonic() + READ_AGAIN_S
        self.consumer.pause(tp)

    def forget(self, tp: TopicPartition) -> None:
        self._batches.pop(tp, None)

    def try_again(self, *, paused: bool) -> None:
        """Before a poll. paused: nothing is to be fetched now."""
        for tp, batch in list(self._batches.items()):
            if (position := position_of(self.consumer, tp)) is not None and position > batch.first:
                log.warning("%s partition %d can be read again", tp.topic, tp.partition)
                del self._batches[tp]
            if not paused and time.monotonic() >= self._again_at[tp]:
                self._again_at[tp] = time.monotonic() + READ_AGAIN_S
                self.consumer.resume(tp)
