"""What linewatch mends in kafka-python: each test shows the client's fault without the mend.

One that fails on a newer client says that its mend may have become needless, or that the client no longer bears it:
docs/architecture.md has the table. `make kafka-python VERSION=...` runs these and the tests of the mended client.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import CorruptRecordError, KafkaConnectionError, KafkaError, KafkaTimeoutError
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionalRequestResult
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from pipeline.contracts.deadletters import dead_letter
from pipeline.errors import HeadersRefused
from pipeline.fakes import MemoryStore
from pipeline.kafka import clients, membership, publisher
from pipeline.kafka.clients import make_consumer, make_producer
from pipeline.kafka.header_names import Batch, HeaderName
from pipeline.kafka.publisher import Publisher
from pipeline.kafka.session import KafkaSession
from pipeline.settings import Settings
from pipeline.stream.intake import captured
from tests.conftest import Plant
from tests.pipeline.brokers import apache_only, collect, joined, prepared, produce
from tests.pipeline.kafka.test_membership import count_joins, expel

ODD = HeaderName(b"ce_\xff\xfe".decode(errors="surrogateescape"))


@contextmanager
def bare_member(settings: Settings) -> Iterator[KafkaConsumer]:
    """A consumer as the client gives it, in the group once it is polled."""
    options = {"group_id": settings.kafka.group, "partition_assignment_strategy": [CooperativeStickyAssignor()]}
    with closing(make_consumer(settings, heartbeat_interval_ms=500, session_timeout_ms=6000, **options)) as consumer:
        consumer.subscribe([settings.topics.images])
        yield consumer


def test_the_private_parts_that_the_mends_lean_on_are_there() -> None:
    """But for those of instances, which the tests below use."""
    assert "timeout_ms" in inspect.signature(ConsumerCoordinator.ensure_active_group).parameters
    assert callable(ConsumerCoordinator.need_rejoin)
    assert callable(Sender.force_close)
    assert CooperativeStickyAssignor().member_assignment is None
    assert callable(DefaultRecordBatch._read_msg)
    assert issubclass(memory_records.DefaultRecordBatch, DefaultRecordBatch)


# Offsets that the broker refused


def commit(
    producer: KafkaProducer, offsets: dict[TopicPartition, OffsetAndMetadata], group: ConsumerGroupMetadata
) -> None:
    producer.send_offsets_to_transaction(offsets, group)
    producer.commit_transaction()


@pytest.mark.servers
@apache_only
def test_the_client_sends_refused_offsets_with_its_next_transaction(plant: Plant, exactly_once: bool) -> None:
    assert exactly_once
    settings = prepared(plant)
    images = settings.topics.images
    with (
        joined(settings) as session,
        closing(make_producer(settings, transactional_id="keeps-refused")) as producer,
    ):
        produce(settings, b"a", b"b")
        collect(session, 2)
        valid = session._consumer.group_metadata()
        producer.init_transactions()
        producer.begin_transaction()
        old = valid._replace(generation_id=valid.generation_id - 1)
        with pytest.raises(KafkaError):
            commit(producer, {TopicPartition(images, 0): OffsetAndMetadata(1, "", -1)}, old)
        producer.abort_transaction()
        producer.begin_transaction()
        commit(producer, {TopicPartition(images, 1): OffsetAndMetadata(1, "", -1)}, valid)
        assert session._consumer.committed(TopicPartition(images, 0)) == 1, "needless: a producer of its own per abort"


# A coordinator that can't be reached


def sender(await_ready: Callable[..., bool]) -> Mock:
    """Of a producer whose coordinator is away, with one request of a transaction to send."""
    found = Mock(_running=True, _force_close=False, config={"request_timeout_ms": 1, "retry_backoff_ms": 1})
    found._client = SimpleNamespace(await_ready=await_ready)
    found._accumulator.has_incomplete = False
    return found


def unreachable(_node: object, timeout_ms: int) -> bool:
    raise KafkaConnectionError(f"not within {timeout_ms} ms")


def test_the_client_drops_a_transactions_request_when_the_coordinator_cannot_be_reached() -> None:
    bare = sender(unreachable)
    Sender._maybe_send_pending_request(bare)
    assert not bare._transaction_manager.retry.called, "needless: pipeline.kafka.clients._keep_requests"
    mended = sender(unreachable)
    clients._keep_requests(SimpleNamespace(_sender=mended))  # type: ignore[arg-type]
    Sender._maybe_send_pending_request(mended)
    assert mended._transaction_manager.retry.called


def test_the_client_waits_for_a_commit_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    never = TransactionalRequestResult()
    bare = SimpleNamespace(_transaction_manager=Mock(**{"begin_commit.return_value": never}), _sender=Mock())
    waiting = threading.Thread(target=KafkaProducer.commit_transaction, args=(bare,), daemon=True)
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive(), "needless: pipeline.kafka.publisher.Publisher._ended"
    never.done()
    waiting.join(60)
    monkeypatch.setattr(publisher, "FLUSH_TIMEOUT_S", 0.01)
    with pytest.raises(KafkaTimeoutError, match="no answer"):
        Publisher._ended(SimpleNamespace(producer=bare), TransactionalRequestResult())  # type: ignore[arg-type]


# A member that was expelled


@pytest.mark.servers
@apache_only
def test_the_client_commits_offsets_of_a_group_that_it_is_no_member_of(plant: Plant, exactly_once: bool) -> None:
    assert exactly_once
    settings = prepared(plant)
    tp = TopicPartition(settings.topics.images, 0)
    with (
        bare_member(settings) as outsider,
        joined(settings) as session,
        closing(make_producer(settings, transactional_id="outsider")) as producer,
    ):
        produce(settings, b"a")
        collect(session, 1)
        producer.init_transactions()
        producer.begin_transaction()
        commit(producer, {tp: OffsetAndMetadata(1, "", -1)}, outsider.group_metadata())
        assert session._consumer.committed(tp) == 1, "needless: pipeline.kafka.membership.Membership.generation"


class Client(CooperativeStickyAssignor):
    """The client's own, with what a member asks of linewatch's."""

    def behind(self, _known: object) -> bool:
        return False


def come_back(session: KafkaSession, eventually: Callable[..., None]) -> None:
    eventually(lambda: session.poll(0.1) or session._member.lasts, within_s=60, what="it joins again")


@pytest.mark.servers
@apache_only
def test_the_client_claims_what_it_had_before_it_was_expelled(
    plant: Plant, exactly_once: bool, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    settings = prepared(plant)
    claims: list[int] = []

    class Bare(Client):
        def metadata(self, topics: set[str]) -> object:
            found = super().metadata(topics)
            claims.append(sum(len(one.partitions) for one in found.owned_partitions))
            return found

    monkeypatch.setattr(membership, "_Assignor", lambda *_: Bare())
    with joined(settings, exactly_once=exactly_once) as session:
        produce(settings, b"a", b"b")
        collect(session, 2)
        claims.clear()
        expel(settings, session)
        come_back(session, eventually)
    assert claims[0] == 2, "needless: pipeline.kafka.membership._Assignor"


@pytest.mark.servers
@apache_only
def test_the_client_tells_nobody_of_what_it_lost_while_it_joined(
    plant: Plant, exactly_once: bool, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    settings = prepared(plant)
    monkeypatch.setattr(membership, "_Assignor", lambda *_: Client())
    with joined(settings, exactly_once=exactly_once) as session:
        produce(settings, b"a", b"b")
        held = collect(session, 2)
        session._consumer._coordinator.rejoining = True
        expel(settings, session)
        come_back(session, eventually)
        assert all(session.owns(record) for record in held), "needless: pipeline.kafka.membership.Holder.expelled"


# Joining


@pytest.mark.servers
@apache_only
def test_the_client_joins_before_it_knows_the_topics_partitions(plant: Plant, exactly_once: bool) -> None:
    assert exactly_once
    settings = prepared(plant)
    with bare_member(settings) as member:
        assert len(member.partitions_for_topic(settings.topics.images) or ()) == 2
        assert member._coordinator.ensure_active_group(timeout_ms=30_000)
        assert len(member.assignment()) == 2
    settings = prepared(plant)
    with bare_member(settings) as member:
        assert member._coordinator.ensure_active_group(timeout_ms=30_000)
        assert not member.assignment(), "needless: asking for the partitions in pipeline.kafka.membership"


@pytest.mark.servers
@apache_only
def test_the_client_forgets_a_join_that_ends_between_two_polls(
    plant: Plant, exactly_once: bool, eventually: Callable[..., None]
) -> None:
    assert exactly_once
    settings = prepared(plant)
    with bare_member(settings) as member:
        member.partitions_for_topic(settings.topics.images)
        member._coordinator.ensure_coordinator_ready(timeout_ms=30_000)
        joins = count_joins(member)
        for _ in range(4):
            poll_until_it_joins(member, len(joins) + 1, joins, eventually)
        assert len(joins) == 4, "needless: joining in a thread of its own"


def poll_until_it_joins(member: KafkaConsumer, count: int, joins: list[None], eventually: Callable[..., None]) -> None:
    """In polls that end before it has joined, and then in none until it has."""
    eventually(lambda: member.poll(timeout_ms=1) or len(joins) == count, what="another join")
    task = member._coordinator._join_task
    eventually(lambda: member.partitions_for_topic("none") or task is None or task.is_done, what="the join's end")


# Names of headers


def batch(*names: str) -> memoryview:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 4096)
    for offset, name in enumerate(names):
        builder.append(offset, 0, b"key", b"value", [("first", b"1"), (name, b"\xff"), ("last", b"3")])
    return memoryview(bytes(builder.build()))


def test_the_client_takes_a_batch_for_corrupt_where_a_headers_name_is_not_utf8() -> None:
    with pytest.raises(CorruptRecordError):
        list(DefaultRecordBatch(batch("good", ODD)))
    good, odd, later = Batch(batch("good", ODD, "größe"))
    assert [name for name, _ in good.headers] == ["first", "good", "last"]
    assert odd.headers == [("first", b"1"), (ODD, b"\xff"), ("last", b"3")]
    assert (odd.key, odd.value, odd.offset) == (b"key", b"value", 1)
    assert [name for name, _ in later.headers] == ["first", "größe", "last"]


@pytest.mark.servers
@apache_only
def test_a_message_whose_headers_name_is_not_utf8_becomes_a_dead_letter_as_it_came(
    plant: Plant, exactly_once: bool
) -> None:
    settings = prepared(plant)
    headers = [("ce_id", b"a"), (ODD, b"odd"), ("x", b"\xff")]
    with closing(make_producer(settings)) as producer:
        producer.send(settings.topics.images, b"value", b"key", headers, partition=0).get(timeout=30)
    produce(settings, b"behind")
    with joined(settings, exactly_once=exactly_once) as session:
        records = sorted(collect(session, 2), key=lambda record: record.offset)
        assert [record.value for record in records] == [b"value", b"behind"], "its partition goes on"
        with pytest.raises(HeadersRefused, match=r"the header name b'ce_\\xff\\xfe' is not UTF-8") as refused:
            captured(records[0], MemoryStore(), settings.limits)
        session.commit([dead_letter(records[0], refused.value, settings.topics.deadletters)], records)
    with closing(make_consumer(settings)) as consumer:
        letters = TopicPartition(settings.topics.deadletters, 0)
        consumer.assign([letters])
        consumer.seek_to_beginning(letters)
        messages: list = []
        for _ in range(60):
            messages += consumer.poll(timeout_ms=500).get(letters, [])
            if messages:
                break
    [letter] = messages
    assert (letter.key, letter.value) == (b"key", b"value")
    assert letter.headers[:3] == headers
    assert letter.headers[1][0].encode() == b"ce_\xff\xfe"
    assert dict(letter.headers)["dlq.error.class"] == b"HeadersRefused"
