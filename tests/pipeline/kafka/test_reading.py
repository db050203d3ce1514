"""A batch that can't be read keeps nobody from what lies before it, and is named with its offsets and its codec."""

from types import SimpleNamespace

import pytest
from kafka import TopicPartition
from kafka.errors import CorruptRecordError, TopicAuthorizationFailedError, UnsupportedCodecError
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.default_records import DefaultRecordBatch

from pipeline.errors import Unreadable
from pipeline.kafka.reading import UnreadableBatch, _Records, read_batch_by_batch

TP = TopicPartition("linewatch.images", 3)


def batch(first: int, *values: bytes, codec: int = 0, headers: tuple = ()) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=1 << 20, offset=first)
    for value in values:
        builder.append(timestamp=1, key=b"k", value=value, headers=list(headers))
    builder.close()
    return bytes(builder.buffer())


def read(log: bytes, at: int = 0) -> tuple[list[int], list[tuple[TopicPartition, UnreadableBatch]], int]:
    """Offsets that came, what could not be read, and where reading goes on."""
    told: list[tuple[TopicPartition, UnreadableBatch]] = []
    records = _Records(lambda tp, one: told.append((tp, one)), at, TP, MemoryRecords(log))
    came = [record.offset for _ in range(3) if records for record in records.take(100)]
    return came, told, records.next_fetch_offset


def damaged(log: bytes) -> bytes:
    return log[:-1] + bytes([log[-1] ^ 1])


def test_every_codec_of_kafka_is_read() -> None:
    value = bytes(5000)
    for codec in range(5):
        assert read(batch(7, value, value, codec=codec), at=7) == ([7, 8], [], 9)


def test_what_lies_before_a_damaged_batch_comes_and_what_lies_behind_it_does_not() -> None:
    log = batch(0, b"a", b"b") + damaged(batch(2, b"c", b"d", b"e")) + batch(5, b"f")
    came, [(tp, unreadable)], goes_on = read(log)
    assert (came, tp, goes_on) == ([0, 1], TP, 2)
    assert (unreadable.first, unreadable.last) == (2, 4)
    assert unreadable.told(tp).startswith(
        "linewatch.images partition 3: offsets 2 to 4 can't be read: they are damaged, in the broker's files or on the"
    )


def test_in_the_middle_of_a_batch_the_offsets_begin_where_reading_does() -> None:
    came, [(_, unreadable)], _ = read(damaged(batch(2, b"c", b"d", b"e")), at=3)
    assert (came, unreadable.first, unreadable.last) == ([], 3, 4)


@pytest.mark.parametrize(("codec", "package"), [(2, "snappy.*python-snappy"), (3, "lz4"), (4, "zstd.*zstandard")])
def test_a_codec_that_is_missing_is_named_with_the_package_that_has_it(
    codec: int, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = batch(0, bytes(5000), codec=codec)

    def missing(*_: object) -> None:
        raise UnsupportedCodecError("not found")

    monkeypatch.setattr(DefaultRecordBatch, "_assert_has_codec", missing)
    came, [(_, unreadable)], goes_on = read(log)
    assert (came, goes_on) == ([], 0)
    monkeypatch.undo()
    with pytest.raises(AssertionError, match=f"compressed with {package}"):
        raise AssertionError(unreadable.reason)
    assert read(log) == ([0], [], 1), "once it is there"


def test_a_codec_that_nobody_knows_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", lambda _: True)
    log = bytearray(batch(0, bytes(5000)))
    log[22] = 6  # the low byte of the batch's attributes
    _, [(_, unreadable)], _ = read(bytes(log))
    assert unreadable.reason.startswith("they are compressed with codec 6, which kafka-python does not know")


def test_bytes_that_a_codec_can_t_take_apart_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", lambda _: True)
    for codec in (1, 2, 3, 4):
        log = bytearray(batch(0, bytes(5000), codec=codec))
        log[61:70] = b"\xff" * 9
        came, [(_, unreadable)], _ = read(bytes(log))
        assert (came, unreadable.first, unreadable.last) == ([], 0, 0)


def test_what_the_broker_can_t_read_itself_is_told_and_what_it_refuses_is_raised() -> None:
    answers: list[Exception] = [CorruptRecordError("on disk"), TopicAuthorizationFailedError({TP.topic})]

    def parse(_: object) -> None:
        raise answers.pop(0)

    told: list[UnreadableBatch] = []
    consumer = SimpleNamespace(_fetcher=SimpleNamespace(_parse_fetched_data=parse))
    read_batch_by_batch(consumer, lambda _, one: told.append(one))
    fetch = SimpleNamespace(topic_partition=TP, fetched_offset=7)
    assert consumer._fetcher._parse_fetched_data(fetch) is None
    assert [(one.first, one.last) for one in told] == [(7, 7)]
    assert "they are damaged" in told[0].reason
    with pytest.raises(TopicAuthorizationFailedError):
        consumer._fetcher._parse_fetched_data(fetch)


def test_a_reader_that_was_not_told_what_to_do_raises() -> None:
    consumer = SimpleNamespace(_fetcher=SimpleNamespace(_parse_fetched_data=None))
    read_batch_by_batch(consumer)
    records = consumer._fetcher.PartitionRecords(0, TP, MemoryRecords(damaged(batch(0, b"a"))))
    with pytest.raises(Unreadable, match="offsets 0 to 0 can't be read"):
        records.take(10)
