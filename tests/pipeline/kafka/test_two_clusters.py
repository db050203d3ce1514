"""Two clusters in one group, as while Ray is upgraded: ranks are the same, and nobody fences the other."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest
from kafka.admin import KafkaAdminClient

from pipeline.errors import CommitLost
from pipeline.kafka.clients import admin_client, make_producer
from pipeline.kafka.left_open import end_left_open
from pipeline.kafka.member_names import cluster_mark, is_member_name, member_name
from pipeline.kafka.session import KafkaSession
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.pipeline.brokers import apache_only, committed_values, events_for, prepared, produce

OLD, NEW = cluster_mark("session_2026-01-01"), cluster_mark("session_2026-01-02")


def test_a_member_is_called_by_group_rank_and_cluster() -> None:
    assert member_name("line", lambda: 3, OLD) == f"line-3@{OLD}"
    assert member_name("line", lambda: 3, "") == "line-3"
    assert OLD != NEW
    assert cluster_mark("session_2026-01-01") == OLD


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("line-0", True),
        (f"line-12@{OLD}", True),
        ("line-deadletters", False),
        ("line-rescore-x", False),
        ("line-2-0", False),
        (f"line-2-0@{OLD}", False),
        ("other-0", False),
    ],
)
def test_names_of_other_groups_and_of_other_jobs_are_not_ours(name: str, ours: bool) -> None:
    assert is_member_name("line", name) is ours


def run_both(
    settings: Settings, clusters: tuple[str, str], images: int, most_lost: int = 10
) -> tuple[Counter[str], int]:
    """Members of rank 0 of both clusters, until all images have their events: commits of each, and lost commits.

    Ends with so many lost ones, too.
    """
    commits: Counter[str] = Counter()
    done = lost = 0
    with ExitStack() as stack:
        members = []
        for number, cluster in enumerate(clusters):
            member = KafkaSession(settings, rank=lambda: 0, exactly_once=True, cluster=cluster)
            stack.callback(member.close)
            members.append((f"member {number}", member))
        deadline = time.monotonic() + 120
        while not all(len(member._leases) == 1 for _, member in members):
            assert time.monotonic() < deadline, "the partitions were not shared out"
            for _, member in members:
                member.poll(0.1)
        produced = 0
        while done < images and lost < most_lost:
            assert time.monotonic() < deadline, f"{done} of {images}"
            if produced <= done:
                produce(settings, b"%03d" % produced, b"%03d" % (produced + 1))
                produced += 2
            for name, member in members:
                records = [record for record in member.poll(0.1) if member.owns(record)]
                try:
                    for record in records:
                        member.commit(events_for(settings, [record]), [record])
                        commits[name] += 1
                        done += 1
                except CommitLost:
                    lost += 1
    return commits, lost


@pytest.mark.servers
@apache_only
def test_two_clusters_in_one_group_do_not_fence_each_other(plant: Plant, exactly_once: bool) -> None:
    assert exactly_once
    settings = prepared(plant)
    commits, lost = run_both(settings, (OLD, NEW), 20)
    assert lost == 0
    assert set(commits) == {"member 0", "member 1"}
    values = committed_values(settings, settings.topics.events, 20)
    assert Counter(values) == Counter(b"%03d" % number for number in range(20))


@pytest.mark.servers
@apache_only
def test_by_rank_alone_they_fence_each_other_for_ever(plant: Plant, exactly_once: bool) -> None:
    """Why names have a mark: the fault without it. Nothing is doubled, and nothing gets on."""
    assert exactly_once
    settings = prepared(plant)
    commits, lost = run_both(settings, ("", ""), 20, most_lost=10)
    assert lost == 10
    assert sum(commits.values()) < 20
    values = committed_values(settings, settings.topics.events, sum(commits.values()))
    assert len(values) == len(set(values)) == sum(commits.values())


@pytest.mark.servers
@apache_only
def test_static_members_of_two_clusters_are_both_in_the_group(plant: Plant, exactly_once: bool) -> None:
    assert exactly_once
    settings = prepared(plant, kafka={"static_membership": True})
    commits, lost = run_both(settings, (OLD, NEW), 8)
    assert lost == 0
    assert set(commits) == {"member 0", "member 1"}


@pytest.mark.servers
@apache_only
def test_what_a_dead_cluster_left_open_is_ended_by_the_new_one(
    plant: Plant, exactly_once: bool, eventually: Callable[..., None]
) -> None:
    assert exactly_once
    settings = prepared(plant)
    dead, own = member_name(settings.kafka.group, lambda: 0, OLD), member_name(settings.kafka.group, lambda: 0, NEW)
    options = {"transactional_id": dead, "transaction_timeout_ms": 600_000}
    with closing(make_producer(settings, **options)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(settings.topics.events, value=b"half", key=b"k").get(timeout=60)
        eventually(lambda: end_left_open(settings, own) == [dead])
        with admin_client(settings) as admin:
            assert _ongoing(admin) == set()
        producer._sender.force_close()


def _ongoing(admin: KafkaAdminClient) -> set[str]:
    listed = admin.list_transactions(state_filters=["Ongoing"])
    return {one.transactional_id for some in listed.values() for one in some}
