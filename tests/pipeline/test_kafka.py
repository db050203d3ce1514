"""What the stream needs of Kafka, on Apache Kafka itself and on Tansu where Tansu can."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from threading import Event, Thread

import pytest
from kafka import TopicPartition
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

from jobs.follow import Follower
from model import ModelBundle
from pipeline.broker import Outgoing, Record
from pipeline.capabilities import probe
from pipeline.deadletters import dead_letter
from pipeline.errors import BrokerUnavailable, CommitLost, ProductUnknown
from pipeline.fakes import MemoryStore
from pipeline.inspector import Inspector
from pipeline.kafka_clients import admin_client, make_consumer, make_producer
from pipeline.kafka_session import KafkaSession
from pipeline.settings import Settings
from pipeline.topics import ensure_topics
from pipeline.worker import StreamWorker
from tests.conftest import Plant
from tests.pipeline.tiny import message, publish, texture

pytestmark = pytest.mark.servers
apache_only = pytest.mark.parametrize(
    ("plant", "exactly_once"), [pytest.param("apache", True, marks=pytest.mark.apache)], indirect=["plant"]
)
both = pytest.mark.parametrize(
    ("plant", "exactly_once"),
    [pytest.param("apache", True, marks=pytest.mark.apache), ("tansu", False)],
    indirect=["plant"],
)


@pytest.fixture
def plant(request: pytest.FixtureRequest) -> Plant:
    found: Plant = request.getfixturevalue(request.param)
    return found


def prepared(plant: Plant, **sections: dict) -> Settings:
    settings = plant.settings(**sections)
    ensure_topics(settings)
    return settings


def produce(settings: Settings, *values: bytes, topic: str | None = None) -> None:
    with closing(make_producer(settings)) as producer:
        for number, value in enumerate(values):
            producer.send(topic or settings.topics.images, value=value, key=b"k", partition=number % 2).get(timeout=15)


def committed_values(settings: Settings, topic: str, count: int) -> list[bytes]:
    """The first ``count`` values that a reader of committed messages sees, and what comes right behind them."""
    with closing(make_consumer(settings)) as consumer:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        values: list[bytes] = []
        deadline = time.monotonic() + 15
        quiet = 0
        while quiet < 2 and time.monotonic() < deadline:
            found = [message.value for messages in consumer.poll(timeout_ms=250).values() for message in messages]
            values += found
            quiet = quiet + 1 if len(values) >= count and not found else 0
        return values


def collect(session: KafkaSession, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + 60
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += session.poll(0.2)
    return records


def events_for(settings: Settings, records: list[Record]) -> list[Outgoing]:
    return [Outgoing(settings.topics.events, record.key, record.value, (("ce_id", b"x"),)) for record in records]


@contextmanager
def joined(settings: Settings, *, rank: int = 0, exactly_once: bool = True) -> Iterator[KafkaSession]:
    session = KafkaSession(settings, rank=lambda: rank, exactly_once=exactly_once)
    try:
        yield session
    finally:
        session.close()


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


@apache_only
def test_nobody_joins_before_the_topics_partitions_are_known(plant: Plant, exactly_once: bool) -> None:
    """Or it may lead the group, and share out nothing."""
    settings = plant.settings()
    with pytest.raises(BrokerUnavailable, match="is not there: has `linewatch setup` made it"):
        KafkaSession(settings, rank=lambda: 0, exactly_once=exactly_once)
    ensure_topics(settings)
    with joined(settings, exactly_once=exactly_once) as session:
        assert session._consumer._coordinator._subscription.subscription == {settings.topics.images}
        assert len(session._consumer._client.cluster.partitions_for_topic(settings.topics.images) or ()) == 2


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

        producer = session._producer
        with monkeypatch.context() as patch:
            patch.setattr(producer, "send_offsets_to_transaction", refuse)
            with pytest.raises(CommitLost, match="offsets refused"):
                session.commit([Outgoing(settings.topics.events, b"k", b"aborted")], records)
        assert session._producer is not producer, "refused offsets would travel with its next transaction"
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
def test_partitions_move_to_a_second_member_and_nothing_is_lost_or_doubled(plant: Plant, exactly_once: bool) -> None:
    settings = prepared(plant)
    names = [b"%03d" % number for number in range(40)]
    produce(settings, *names[:20])
    done: Counter[bytes | None] = Counter()

    def work(session: KafkaSession) -> None:
        records = [record for record in session.poll(0.1) if session.owns(record)]
        if records:
            try:
                session.commit(events_for(settings, records), records)
            except CommitLost:
                return
            done.update(record.value for record in records)

    with joined(settings, rank=0, exactly_once=exactly_once) as first:
        held = collect(first, 20)
        with joined(settings, rank=1, exactly_once=exactly_once) as second:
            deadline = time.monotonic() + 25
            while not (len(first._leases) == len(second._leases) == 1):
                assert time.monotonic() < deadline, "the partitions did not move"
                work(second)
                work(first)
            kept = [record for record in held if first.owns(record)]
            assert len({record.partition for record in kept}) == 1, "one went to the other member, one stayed in hand"
            first.commit(events_for(settings, kept), kept)
            done.update(record.value for record in kept)
            produce(settings, *names[20:])
            while sum(done.values()) < 40:
                assert time.monotonic() < deadline, f"{sum(done.values())} of 40"
                work(second)
                work(first)
    assert Counter(committed_values(settings, settings.topics.events, 40)) == Counter(names)


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


@apache_only
def test_a_commit_that_waits_for_the_broker_does_not_hold_up_the_group(
    plant: Plant, exactly_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = prepared(plant)
    produce(settings, b"a", b"b", b"c", b"d")
    over = Event()
    with joined(settings, rank=0, exactly_once=exactly_once) as first:
        held = collect(first, 4)
        monkeypatch.setattr(first._producer, "commit_transaction", lambda: over.wait(60))
        commit = Thread(target=lambda: first.commit(events_for(settings, held), held), daemon=True)
        commit.start()
        try:
            with joined(settings, rank=1, exactly_once=exactly_once) as second:
                begun = time.monotonic()
                while not second.is_member:
                    assert time.monotonic() < begun + 15, "the group waits for a member that waits for its broker"
                    second.poll(0.1)
        finally:
            over.set()
            commit.join(30)


def expel(settings: Settings, session: KafkaSession) -> None:
    """As the group does when a member's session ends; returns once that member has heard of it."""
    member = session._consumer.group_metadata().member_id
    with admin_client(settings) as admin:
        admin.remove_group_members(settings.kafka.group, [MemberToRemove(member_id=member)])
    deadline = time.monotonic() + 15
    while session.is_member:
        assert time.monotonic() < deadline, "its heartbeats went on"
        time.sleep(0.05)


def one_event_each(settings: Settings, names: list[bytes], *sessions: KafkaSession) -> None:
    """Commit what comes until the group has all; nothing twice."""
    deadline = time.monotonic() + 40
    done = 0
    while done < len(names):
        assert time.monotonic() < deadline, f"{done} of {len(names)}"
        for session in sessions:
            records = [record for record in session.poll(0.1) if session.owns(record)]
            if records:
                session.commit(events_for(settings, records), records)
                done += len(records)


@apache_only
def test_an_expelled_member_commits_nothing_that_others_went_past(plant: Plant, exactly_once: bool) -> None:
    """A broker takes a transaction's offsets from whoever names no generation: they would set the group back."""
    settings = prepared(plant)
    names = [b"%d" % number for number in range(6)]
    produce(settings, *names)
    with joined(settings, rank=0, exactly_once=exactly_once) as first:
        held = collect(first, 6)
        expel(settings, first)
        with joined(settings, rank=1, exactly_once=exactly_once) as second:
            one_event_each(settings, names, second)
            with pytest.raises(CommitLost, match="not a member"):
                first.commit(events_for(settings, held), held)
    assert sorted(committed_values(settings, settings.topics.events, 6)) == names


@apache_only
def test_an_expelled_member_goes_on_from_where_the_group_stands(plant: Plant, exactly_once: bool) -> None:
    """Also if it is expelled while it joins: then the client tells nobody that its partitions were lost."""
    settings = prepared(plant)
    names = [b"%d" % number for number in range(6)]
    produce(settings, *names)
    with joined(settings, rank=0, exactly_once=exactly_once) as first:
        held = collect(first, 6)
        first._consumer._coordinator.rejoining = True
        expel(settings, first)
        with joined(settings, rank=1, exactly_once=exactly_once) as second:
            one_event_each(settings, names, second)
        deadline = time.monotonic() + 20
        while not first.is_member or len(first._leases) < 2:
            assert time.monotonic() < deadline, "it did not come back"
            assert not first.poll(0.1)
        assert not any(first.owns(record) for record in held)
        with pytest.raises(CommitLost):
            first.commit(events_for(settings, held), held)
    assert sorted(committed_values(settings, settings.topics.events, 6)) == names


@apache_only
def test_an_expelled_member_claims_no_partition(
    plant: Plant, exactly_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a member claims and does not have, a leader gives to nobody until it is given back."""
    settings = prepared(plant)
    claims: list[int] = []
    usual = CooperativeStickyAssignor.metadata

    def watched(assignor: CooperativeStickyAssignor, topics: set[str]) -> ConsumerProtocolSubscription:
        found = usual(assignor, topics)
        claims.append(sum(len(one.partitions) for one in found.owned_partitions))
        return found

    monkeypatch.setattr(CooperativeStickyAssignor, "metadata", watched)
    with joined(settings, rank=0, exactly_once=exactly_once) as first:
        produce(settings, b"a", b"b")
        collect(first, 2)
        first._consumer._coordinator.request_rejoin()
        deadline = time.monotonic() + 20
        while first._consumer._coordinator.need_rejoin():
            assert time.monotonic() < deadline, "it did not join again"
            first.poll(0.1)
        assert claims[-1] == 2, "a member claims what it has"
        claims.clear()
        expel(settings, first)
        while not claims or len(first._leases) < 2:
            assert time.monotonic() < deadline, "it did not come back"
            first.poll(0.1)
    assert set(claims) == {0}


@apache_only
def test_a_worker_that_joins_in_mid_stream_costs_no_image_and_doubles_none(
    plant: Plant, exactly_once: bool, tiny_bundle: ModelBundle, eventually
) -> None:
    settings = prepared(
        plant, topics={"partitions": 4}, stream={"batch_images": 4}, engine={"device": "cpu", "threads": 1}
    )
    store = MemoryStore()
    publish(store, tiny_bundle)
    names = [f"img-{number:03d}" for number in range(80)]
    with closing(make_producer(settings)) as producer:
        for number, name in enumerate(names):
            image = message(name, texture(number % 7), camera=f"/plant/cam{number % 5}")
            producer.send(settings.topics.images, image.value, image.key, list(image.headers))
    seen: Counter[bytes] = Counter()
    workers: list[StreamWorker] = []

    def start(rank: int) -> None:
        open_session = partial(KafkaSession, settings, rank=lambda: rank, exactly_once=exactly_once)
        workers.append(StreamWorker(Inspector(settings, store), open_session))
        workers[-1].start()

    with Follower(settings, settings.topics.events, from_beginning=True) as follower:

        def count() -> int:
            seen.update(dict(record.headers)["ce_imageid"] for record in follower.poll())
            return sum(seen.values())

        try:
            start(0)
            eventually(lambda: count() >= 8, within_s=30)
            start(1)
            eventually(lambda: count() >= len(names), within_s=60, what="an event for each image")
        finally:
            for worker in workers:
                worker.stop()
        seen.update(dict(record.headers)["ce_imageid"] for record in follower.rest())
    assert seen == Counter(name.encode() for name in names)


@apache_only
def test_a_paused_session_stays_a_member_and_fetches_nothing(plant: Plant, exactly_once: bool) -> None:
    settings = prepared(plant)
    with joined(settings, exactly_once=exactly_once) as session:
        eventually_assigned(session)
        session.pause()
        produce(settings, b"a")
        assert [record for _ in range(4) for record in session.poll(0.1)] == []
        session.resume()
        assert [record.value for record in collect(session, 1)] == [b"a"]


def eventually_assigned(session: KafkaSession) -> None:
    deadline = time.monotonic() + 60
    while not session._leases:
        assert time.monotonic() < deadline
        session.poll(0.1)


@pytest.mark.parametrize(
    "ask", [probe, ensure_topics, lambda settings: KafkaSession(settings, rank=lambda: 0, exactly_once=True)]
)
def test_a_broker_that_is_not_there_is_one_line_that_names_it(
    ask: Callable[[Settings], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import kafka_clients

    honest = kafka_clients.connection
    monkeypatch.setattr(kafka_clients, "connection", lambda kafka: {**honest(kafka), "bootstrap_timeout_ms": 500})
    with pytest.raises(BrokerUnavailable, match=r"Kafka at 127\.0\.0\.1:9 does not answer") as caught:
        ask(Settings.from_values({"kafka": {"bootstrap_servers": "127.0.0.1:9"}}))
    assert "\n" not in str(caught.value)
