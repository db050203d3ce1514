"""Three brokers of Apache Kafka, as their users meet them: one is killed, and nobody loses anything."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from infra.local import LocalServers
from infra.local.apache_kafka import ApacheKafka
from infra.local.choice import S3Kind
from infra.local.errors import NotReady
from infra.local.server import Server
from infra.local.servers import stop_recorded
from jobs.cli.local import local
from pipeline.kafka.clients import admin_client, make_consumer, make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.infra.real_servers import gone, is_loopback, listening_addresses
from tests.pipeline.environment import clean_environment

__all__ = ["clean_environment"]

pytestmark = [pytest.mark.servers, pytest.mark.apache]
# Measured: 3 to 6 s. The machine may be busy.
FAILOVER_S = 30.0


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], None], quick_s3: str) -> Iterator[Path]:
    need("apache")
    folder = tmp_path_factory.mktemp("three") / "data"
    try:
        up = run("up", "--brokers", "3", "--kafka", "apache", "--s3", quick_s3, "--data-dir", str(folder))
        assert up.exit_code == 0, up.output
        yield folder
    finally:
        stop_recorded(folder)


@pytest.fixture
def servers(data_dir: Path) -> LocalServers:
    found = LocalServers.attach(data_dir)
    assert found is not None
    return found


@pytest.fixture
def settings(servers: LocalServers) -> Settings:
    """As a shell has them after `eval "$(linewatch local env)"`."""
    os.environ.update(servers.environment())
    settings = Settings.load()
    ensure_topics(settings)
    return settings


def run(*words: str) -> Result:
    return CliRunner().invoke(local, list(words))


def described(settings: Settings) -> dict[str, dict[str, Any]]:
    with admin_client(settings) as admin:
        return {topic["name"]: topic for topic in admin.describe_topics()}


def min_insync_replicas(settings: Settings, topic: str) -> str:
    with admin_client(settings) as admin:
        told = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return str(told["topic"][topic]["min.insync.replicas"]["value"])


def active_controller(settings: Settings, servers: LocalServers) -> Server:
    with admin_client(settings) as admin:
        [metadata] = admin.describe_metadata_quorum()["topics"]
    return servers.brokers[metadata["partitions"][0]["leader_id"] - 1]


class Camera(threading.Thread):
    """Numbers the messages that it sends to each partition in turn, until `enough`; notes what is acknowledged."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.sent_at: dict[int, float] = {}
        self.acknowledged: dict[int, float] = {}
        self.enough = threading.Event()

    def run(self) -> None:
        with closing(make_producer(self.settings)) as producer:
            while not self.enough.wait(0.01):
                number = len(self.sent_at)
                self.sent_at[number] = time.monotonic()
                partition = number % self.settings.topics.partitions
                sent = producer.send(self.settings.topics.images, b"%d" % number, partition=partition)
                sent.add_callback(lambda _, number=number: self.acknowledged.update({number: time.monotonic()}))
            producer.flush()

    def resumed_at(self, since: float) -> float | None:
        """When each partition had acknowledged something that was sent after `since`; None: not all have."""
        first: dict[int, float] = {}
        for number, at in sorted(self.acknowledged.copy().items()):
            if self.sent_at[number] > since:
                first.setdefault(number % self.settings.topics.partitions, at)
        return max(first.values()) if len(first) == self.settings.topics.partitions else None


def read(settings: Settings, count: int) -> list[int]:
    """In the order of each partition; at least `count` of them, unless they don't come."""
    values: list[int] = []
    with closing(make_consumer(settings)) as consumer:
        partitions = [TopicPartition(settings.topics.images, number) for number in range(settings.topics.partitions)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            fetched = consumer.poll(timeout_ms=1000)
            values += [int(record.value) for records in fetched.values() for record in records]
            if len(values) >= count and not fetched:
                break
    return values


def test_they_run_on_loopback_and_the_command_line_knows_them(servers: LocalServers, data_dir: Path) -> None:
    pids = [server.pid for server in servers.members]
    assert len({pid for pid in pids if pid}) == 4
    listening = listening_addresses(pid for pid in pids if pid)
    assert [entry for entry in listening if not is_loopback(entry[0])] == []
    assert {port for broker in servers.brokers for port in broker.program.ports.values()} <= {p for _, p in listening}
    assert run("status", "--data-dir", str(data_dir)).exit_code == 0
    again = run("up", "--data-dir", str(data_dir))
    assert again.output.startswith("Running already. Kafka: Apache Kafka")
    assert servers.bootstrap_servers in again.output


def test_topics_and_what_kafka_keeps_for_itself_have_three_copies(settings: Settings) -> None:
    topics = settings.topics
    group = make_consumer(settings, group_id="copies")
    producer = make_producer(settings, transactional_id="copies")
    with closing(group), closing(producer):
        group.subscribe([topics.feedback])
        deadline = time.monotonic() + 30
        while not group.assignment() and time.monotonic() < deadline:
            group.poll(timeout_ms=200)
        producer.init_transactions()
        producer.begin_transaction()
        offsets = {TopicPartition(topics.feedback, 0): OffsetAndMetadata(0, "", -1)}
        producer.send_offsets_to_transaction(offsets, group.group_metadata())
        producer.commit_transaction()
    found = described(settings)
    for name in (topics.images, topics.releases, "__consumer_offsets", "__transaction_state"):
        for partition in found[name]["partitions"]:
            assert sorted(partition["replica_nodes"]) == [1, 2, 3], name
        assert min_insync_replicas(settings, name) == "2", name


def test_nothing_acknowledged_is_lost_and_producing_goes_on_while_a_broker_is_down(
    settings: Settings, servers: LocalServers, data_dir: Path
) -> None:
    """It leads partitions, and the controllers too."""
    victim = active_controller(settings, servers)
    camera = Camera(settings)
    camera.start()
    try:
        started = time.monotonic()
        while camera.resumed_at(started) is None and time.monotonic() < started + FAILOVER_S:
            time.sleep(0.05)
        victim.kill()
        killed = time.monotonic()
        while camera.resumed_at(killed) is None and time.monotonic() < killed + FAILOVER_S:
            time.sleep(0.05)
        assert camera.resumed_at(killed) is not None, "every partition takes messages again"
        found = LocalServers.attach(data_dir)
        assert found is not None
        assert not found.complete
        assert run("status", "--data-dir", str(data_dir)).exit_code == 1

        up = run("up", "--data-dir", str(data_dir))
        assert f"Starting Apache Kafka at {victim.endpoint} again" in up.output
        number = servers.brokers.index(victim) + 1
        for name, topic in described(settings).items():
            for partition in topic["partitions"]:
                assert number in partition["isr_nodes"], f"{name} is not in sync on the broker that came back"
    finally:
        camera.enough.set()
        camera.join()
    values = read(settings, len(camera.acknowledged))
    assert set(camera.acknowledged) <= set(values)
    assert len(values) == len(set(values)), "the idempotent producer doubles nothing"


def test_down_ends_all_of_them(servers: LocalServers, data_dir: Path) -> None:
    pids = [server.pid for server in servers.members if server.pid]
    assert run("down", "--data-dir", str(data_dir)).output == "Stopped.\n"
    assert gone(pids)


def test_one_that_ends_while_starting_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Callable[[str], None], quick_s3: S3Kind
) -> None:
    """The others wait for it, so that their own silence would say nothing."""
    need("apache")
    whole = ApacheKafka.command

    def command(self: ApacheKafka) -> list[str]:
        words = whole(self)
        return words if self.number < 3 else [words[0], "-Xmx1k", *words[2:]]

    monkeypatch.setattr(ApacheKafka, "command", command)
    begun = time.monotonic()
    with pytest.raises(NotReady, match=r"ended while starting[^\n]*apache-kafka-3\.log[^\n]*\n[^\0]*heap"):
        LocalServers.start(tmp_path / "data", kafka="apache", s3=quick_s3, brokers=3)
    assert time.monotonic() - begun < ApacheKafka.ready_within_s / 2
