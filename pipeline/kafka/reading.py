"""What a fetch has brought, batch by batch: one that can't be read keeps its own partition, and no other.

kafka-python 3.0.12 raises in whichever poll meets such a batch, whatever other partitions that poll has messages of,
and never ends a second one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import AuthorizationError, CorruptRecordError, KafkaError, UnsupportedCodecError
from kafka.record.default_records import DefaultRecordBatch

from pipeline.errors import Unreadable

CODECS = {1: ("gzip", "zlib"), 2: ("snappy", "python-snappy"), 3: ("lz4", "lz4"), 4: ("zstd", "zstandard")}
"""Kafka's number of a codec to its name, and to the package that reads it."""


@dataclass(frozen=True)
class UnreadableBatch:
    """Offsets of a batch that the client can't read, from the first that nobody has had, and why."""

    first: int
    last: int
    reason: str

    def told(self, tp: TopicPartition) -> str:
        return f"{tp.topic} partition {tp.partition}: offsets {self.first} to {self.last} can't be read: {self.reason}"


OnUnreadable = Callable[[TopicPartition, UnreadableBatch], None]


def _refuse(tp: TopicPartition, batch: UnreadableBatch) -> None:
    raise Unreadable(batch.told(tp))


def read_batch_by_batch(consumer: KafkaConsumer, on_unreadable: OnUnreadable = _refuse) -> None:
    """Have the consumer hand out what lies before an unreadable batch, and then call ``on_unreadable``.

    Its position stays at that batch: unless the partition is paused, the next poll fetches it again.
    """
    fetcher = consumer._fetcher
    fetcher.PartitionRecords = partial(_Records, on_unreadable)
    parse = fetcher._parse_fetched_data

    def parsed(fetch: Any) -> Any:
        try:
            return parse(fetch)
        except AuthorizationError:
            raise
        except KafkaError as error:  # the broker can't read it itself
            first = fetch.fetched_offset
            on_unreadable(fetch.topic_partition, UnreadableBatch(first, first, _reason(error, 0)))
            return None

    fetcher._parse_fetched_data = parsed


class _Records(Fetcher.PartitionRecords):
    def __init__(self, on_unreadable: OnUnreadable, *args: Any, **options: Any) -> None:
        self._on_unreadable = on_unreadable
        super().__init__(*args, **options)

    def _unpack_records(self, tp: TopicPartition, records: Any, *deserializers: Any) -> Iterator[Any]:
        batches = _Batches(records)
        try:
            yield from super()._unpack_records(tp, batches, *deserializers)
        except Exception as error:  # whatever a codec's library raises
            first = max(self.next_fetch_offset, batches.first)
            self._on_unreadable(tp, UnreadableBatch(first, max(first, batches.last), _reason(error, batches.codec)))
            self.drain()


class _Batches:
    """The batches of a fetch, which remembers the last one that it gave."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.first = self.last = self.codec = 0

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if isinstance(batch, DefaultRecordBatch):
            self.first, self.last, self.codec = batch.base_offset, batch.last_offset, batch.compression_type
        return batch


def _reason(error: Exception, codec: int) -> str:
    if isinstance(error, UnsupportedCodecError):
        if codec not in CODECS:
            return f"they are compressed with codec {codec}, which kafka-python does not know: use another one"
        name, package = CODECS[codec]
        return (
            f"they are compressed with {name}, for which Python has no library here: install {package} where the "
            "replicas run, and start them again"
        )
    if isinstance(error, CorruptRecordError):
        return f"they are damaged, in the broker's files or on the way ({error})"
    name = CODECS.get(codec, ("no codec", ""))[0]
    return f"{type(error).__name__} ({name}): {error}"
