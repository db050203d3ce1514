"""What the stream needs of Kafka, on Apache Kafka itself and on Tansu where Tansu can."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from threading import Thread

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError

from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.deadletters import dead_letter
from pipeline.errors import BrokerUnavailable, CommitLost, ProductUnknown
from pipeline.kafka.capabilities import probe
from pipeline.kafka.clients import admin_client, make_consumer, make_producer
from pipeline.kafka.session import KafkaSession
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.pipeline.brokers import apache_only, both, collect, committed_values, events_for, joined, prepared, produce

pytestmark = pytest.mark.servers


@both
def test_the_probe_tells_what_the_broker_does(plant: Plant, exactly_once: bool) -> None:
    settings = plant.settings()
    found = probe(settings)
    assert found.delivery == ("exactly_once" if exactly_once else "at_least_once")
    assert found.delivery.replace("_", " ") in found.describe()
    if exactly_once:
        assert found.end_offsets_exact
        with admin_client(settings) as admin:
            assert not [name for name in admin.list_topics() if ".probe." in name], "it leaves nothing behind"


@both
def test_topics_are_made_once(plant: Plant, exactly_once: bool) -> None:
    settings = plant.settings()
    made = ensure_topics(settings)
    assert len(made) == 6
    assert ensure_topics(settings) == []
    with admin_client(settings) as admin:
        assert set(made) <= set(admin.list_topics())
    with closing(make_consumer(settings)) as consumer:
        consumer.topics()
        if exactly_once:
            assert len(consumer.partitions_for_topic(settings.topics.images) or ()) == 2
            assert len(consumer.partitions_for_topic(settings.topics.deadletters) or ()) == 1


@apache_only
def test_more_copies_than_brokers_are_refused_by_the_settings_name(plant: Plant, exactly_once: bool) -> None:
    assert exactly_once
    with pytest.raises(BrokerUnavailable, match=r"fewer brokers up than topics\.replication_factor asks for \(3\)"):
        ensure_topics(plant.settings(topics={"replication_factor": 3}))


@both
def test_what_is_committed_is_published_and_not_read_again(plant: Plant, exactly_once: bool) -> None:
    settings = prepared(plant)
    produce(settings, *(b"%d" % number for number in range(6)))
    with joined(settings, exactly_once=exactly_once) as session:
        records = collect(session, 6)
        assert Counter(record.value for record in records) == Counter(b"%d" % number for number in range(6))
        assert all(session.owns(record) and record.key == b"k" for record in records)
        session.commit(events_for(settings, records), records)
    assert sorted(committed_values(settings, settings.topics.events, 6)) == [b"%d" % number for number in range(6)]
    produce(settings, b"later")
    with joined(settings, exactly_once=exactly_once) as session:
        assert [record.value for record in collect(session, 1)] == [b"later"]


@apache_only
def test_what_other_clients_may_send_can_be_committed_as_a_dead_letter(plant: Plant, exactly_once: bool) -> None:
    """Null keys, null values and null headers come from other clients; kafka-python can't send all of them."""
    settings = prepared(plant)
    produce(settings, b"first")
    with joined(settings, exactly_once=exactly_once) as session:
        (record,) = collect(session, 1)
        odd = [
            Record(record.topic, record.partition, record.offset, None, None, (("x", None),), 0),  # type: ignore[arg-type]
            Record(record.topic, record.partition, record.offset, b"k", None, (), 0),
        ]
        letters = [dead_letter(one, ProductUnknown("x"), settings.topics.deadletters) for one in odd]
        session.commit(letters, [record])
    assert len(committed_values(settings, settings.topics.deadletters, 2)) == 2


@apache_only
def test_a_dead_letter_of_the_largest_message_fits(plant: Plant, exactly_once: bool) -> None:
    settings = prepared(plant, topics={"max_message_bytes": 131_072}, limits={"inline_bytes": 65_536})
    value = b"x" * 130_500
    produce(settings, value)
    with joined(settings, exactly_once=exactly_once) as session:
        (record,) = collect(session, 1)
        session.commit([dead_letter(record, ProductUnknown("y" * 500), settings.topics.deadletters)], [record])
    assert committed_values(settings, settings.topics.deadletters, 1) == [value]


@apache_only
def test_what_was_aborted_is_never_seen(plant: Plant, exactly_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = prepared(plant)
    produce(settings, b"a", b"b")
    with joined(settings, exactly_once=exactly_once) as session:
        records = collect(session, 2)
        leases = {record.partition: record.lease for record in records}

        def refuse(*_: object) -> None:
            raise KafkaError("offsets refused")

        producer = session._publisher.producer
        with monkeypatch.context() as patch:
            patch.setattr(producer._transaction_manager, "send_offsets_to_transaction", refuse)
            with pytest.raises(CommitLost, match="offsets refused"):
                session.commit([Outgoing(settings.topics.events, b"k", b"aborted")], records)
        assert session._publisher.producer is not producer, "refused offsets would travel with its next transaction"
        assert not any(session.owns(record) for record in records), "under a new lease"
        again = collect(session, 2)
        assert {record.value for record in again} == {b"a", b"b"}
        assert all(record.lease != leases[record.partition] for record in again)
        session.commit([Outgoing(settings.topics.events, b"k", b"committed")], again)
    assert committed_values(settings, settings.topics.events, 1) == [b"committed"]


@apache_only
def test_offsets_that_the_broker_refused_are_never_sent_again(
    plant: Plant, exactly_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that kept them would commit images that were not published, or set a partition back."""
    settings = prepared(plant)
    produce(settings, *(b"%d" % number for number in range(6)))
    with joined(settings, exactly_once=exactly_once) as session:
        records = collect(session, 6)
        membership = session._consumer.group_metadata()
        old = membership._replace(generation_id=membership.generation_id - 1)
        with monkeypatch.context() as patch:
            patch.setattr(session._consumer, "group_metadata", lambda: old)
            with pytest.raises(CommitLost):
                session.commit(
                    [Outgoing(settings.topics.events, b"k", b"refused")],
                    [record for record in records if record.partition == 0][:2],
                )
        again = [record for record in collect(session, 6) if record.partition == 1]
        session.commit([Outgoing(settings.topics.events, b"k", b"taken")], again)
        offsets = {
            number: session._consumer.committed(TopicPartition(settings.topics.images, number)) for number in (0, 1)
        }
    assert offsets[1] == 3
    assert not offsets[0], "its images were not published"
    assert committed_values(settings, settings.topics.events, 1) == [b"taken"]


@both
def test_a_message_that_can_never_be_sent_is_a_lost_commit_and_nothing_is_half_done(
    plant: Plant, exactly_once: bool
) -> None:
    settings = prepared(plant)
    produce(settings, b"a")
    with joined(settings, exactly_once=exactly_once) as session:
        records = collect(session, 1)
        too_large = Outgoing(settings.topics.events, b"k", b"x" * (settings.topics.max_message_bytes + 100_000))
        with pytest.raises(CommitLost):
            session.commit([too_large], records)
        again = collect(session, 1)
        session.commit(events_for(settings, again), again)
    assert committed_values(settings, settings.topics.events, 1) == [b"a"]


@apache_only
def test_a_second_session_of_the_same_rank_fences_the_first(plant: Plant, exactly_once: bool) -> None:
    settings = prepared(plant)
    produce(settings, b"a", b"b", b"c")
    with joined(settings, exactly_once=exactly_once) as zombie:
        stale = collect(zombie, 3)
        with closing(make_producer(settings, transactional_id=f"{settings.kafka.group}-0")) as successor:
            successor.init_transactions()
        with pytest.raises(CommitLost):
            zombie.commit(events_for(settings, stale), stale)
        fresh = collect(zombie, 3)
        zombie.commit(events_for(settings, fresh), fresh)
    assert sorted(committed_values(settings, settings.topics.events, 3)) == [b"a", b"b", b"c"]


@apache_only
def test_a_transaction_outlives_its_coordinator(plant: Plant, exactly_once: bool) -> None:
    """kafka-python 3.0.12 drops its last request when nobody answers, and then waits for ever."""
    assert exactly_once
    settings = prepared(plant)
    broker = plant.servers.brokers[0]
    with closing(make_producer(settings, transactional_id="outlives", delivery_timeout_ms=60_000)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(settings.topics.events, b"a", partition=0).get(timeout=15)
        broker.kill()
        commit = Thread(target=producer.commit_transaction, daemon=True)
        commit.start()
        commit.join(2)  # nobody answers
        broker.start()
        commit.join(30)
        assert not commit.is_alive(), "its request was dropped"
    assert committed_values(settings, settings.topics.events, 1) == [b"a"]


@pytest.mark.parametrize(
    "ask", [probe, ensure_topics, lambda settings: KafkaSession(settings, rank=lambda: 0, exactly_once=True)]
)
def test_a_broker_that_is_not_there_is_one_line_that_names_it(
    ask: Callable[[Settings], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.kafka import clients as kafka_clients

    honest = kafka_clients.connection
    monkeypatch.setattr(kafka_clients, "connection", lambda kafka: {**honest(kafka), "bootstrap_timeout_ms": 500})
    with pytest.raises(BrokerUnavailable, match=r"Kafka at 127\.0\.0\.1:9 does not answer") as caught:
        ask(Settings.from_values({"kafka": {"bootstrap_servers": "127.0.0.1:9"}}))
    assert "\n" not in str(caught.value)
