"""Members come, go, and are expelled: each image still has one event."""

import time
from collections import Counter
from contextlib import closing
from functools import partial
from threading import Event, Thread
from typing import ClassVar

import pytest
from kafka import KafkaConsumer
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

from jobs.line.follow import Follower
from model import ModelBundle
from pipeline.errors import BrokerUnavailable, CommitLost
from pipeline.fakes import MemoryStore
from pipeline.kafka.clients import admin_client, make_producer
from pipeline.kafka.membership import _Assignor
from pipeline.kafka.session import KafkaSession
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker
from tests.conftest import Plant
from tests.pipeline.brokers import apache_only, collect, committed_values, events_for, joined, prepared, produce
from tests.pipeline.tiny import message, publish, texture

pytestmark = pytest.mark.servers


@apache_only
def test_nobody_joins_before_the_topics_partitions_are_known(plant: Plant, exactly_once: bool) -> None:
    """Or it may lead the group, and share out nothing."""
    settings = plant.settings()
    with pytest.raises(BrokerUnavailable, match="is not there: 'linewatch setup' makes it"):
        KafkaSession(settings, rank=lambda: 0, exactly_once=exactly_once)
    ensure_topics(settings)
    with joined(settings, exactly_once=exactly_once) as session:
        assert session._consumer._coordinator._subscription.subscription == {settings.topics.images}
        assert len(session._consumer._client.cluster.partitions_for_topic(settings.topics.images) or ()) == 2


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
            deadline = time.monotonic() + 90
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
def test_a_commit_that_waits_for_the_broker_does_not_hold_up_the_group(
    plant: Plant, exactly_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = prepared(plant)
    produce(settings, b"a", b"b", b"c", b"d")
    begun_to_wait, over = Event(), Event()

    class Unanswered:
        def wait(self, timeout_ms: int) -> bool:
            begun_to_wait.set()
            return over.wait(60) and timeout_ms > 0

    with joined(settings, rank=0, exactly_once=exactly_once) as first:
        held = collect(first, 4)
        monkeypatch.setattr(first._publisher.producer._transaction_manager, "begin_commit", Unanswered)
        commit = Thread(target=lambda: first.commit(events_for(settings, held), held), daemon=True)
        commit.start()
        assert begun_to_wait.wait(60)
        try:
            with joined(settings, rank=1, exactly_once=exactly_once) as second:
                begun = time.monotonic()
                while not second._member.lasts:
                    assert time.monotonic() < begun + 50, "the group waits for a member that waits for its broker"
                    second.poll(0.1)
        finally:
            over.set()
            commit.join(30)


def expel(settings: Settings, session: KafkaSession) -> None:
    """As the group does when a member's session ends; returns once that member has heard of it."""
    member = session._consumer.group_metadata().member_id
    with admin_client(settings) as admin:
        admin.remove_group_members(settings.kafka.group, [MemberToRemove(member_id=member)])
    deadline = time.monotonic() + 90
    while session._member.lasts:
        assert time.monotonic() < deadline, "its heartbeats went on"
        time.sleep(0.05)


def count_joins(consumer: KafkaConsumer) -> list[None]:
    """Grows by each attempt to join."""
    joins: list[None] = []
    usual = consumer._coordinator._do_join_and_sync_async

    async def counted() -> object:
        joins.append(None)
        return await usual()

    consumer._coordinator._do_join_and_sync_async = counted
    return joins


def commit_all(settings: Settings, session: KafkaSession, count: int) -> None:
    """As many as the topic has."""
    deadline = time.monotonic() + 90
    done = 0
    while done < count:
        assert time.monotonic() < deadline, f"{done} of {count}"
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
            commit_all(settings, second, 6)
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
            commit_all(settings, second, 6)
        deadline = time.monotonic() + 90
        while not first._member.lasts or len(first._leases) < 2:
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
        deadline = time.monotonic() + 90
        while first._member.must_join:
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
def test_a_join_that_ends_between_two_polls_is_not_forgotten(plant: Plant, exactly_once: bool, eventually) -> None:
    settings = prepared(plant)
    with joined(settings, exactly_once=exactly_once) as session:
        joins = count_joins(session._consumer)
        session.poll(0.001)
        eventually(lambda: not session._member.must_join, within_s=60, what="it joins while nobody polls")
        while not session._leases:
            session.poll(0.1)
        assert len(joins) <= 2, "one, and one that learns its member id; each more makes every member join again"


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
            eventually(lambda: count() >= 8, within_s=60)
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


def test_a_leader_notices_that_the_topic_has_other_partitions_than_it_shared_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CooperativeStickyAssignor, "assign", lambda *_: {})

    class Cluster:
        known: ClassVar[set[int] | None] = None

        def partitions_for_topic(self, _: str) -> set[int] | None:
            return self.known

    class Member:
        lasts = True

    cluster, assignor = Cluster(), _Assignor(Member(), Member(), "images")  # type: ignore[arg-type]
    monkeypatch.setattr(CooperativeStickyAssignor, "metadata", lambda *_: b"")
    assert not assignor.behind({0, 1}), "it leads no group"
    assignor.assign(cluster, [])
    assert not assignor.behind(None), "the topic is gone"
    assert assignor.behind({0, 1}), "the topic is there again"
    cluster.known = {0, 1}
    assignor.assign(cluster, [])
    assert not assignor.behind({1, 0})
    assert assignor.behind({0, 1, 2})
    assignor.metadata(["images"])
    assert not assignor.behind({0, 1, 2}), "it joins again as it is"
