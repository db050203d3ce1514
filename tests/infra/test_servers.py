"""The four real servers, in pairs: what they promise must hold for each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3

from infra.local import LocalServers
from infra.local.errors import AlreadyRunning, NotReady
from infra.local.ports import LOOPBACK
from tests.infra.real_servers import consume, get, gone, is_loopback, listening_addresses, produce, put

pytestmark = pytest.mark.servers

PAIRS = [
    pytest.param(("apache", "quick"), id="apache", marks=pytest.mark.apache),
    pytest.param(("tansu", "seaweedfs"), id="tansu+seaweedfs"),
    pytest.param(("tansu", "minio"), id="tansu+minio"),
]


@pytest.fixture(scope="module", params=PAIRS)
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], None], quick_s3: str
) -> Iterator[LocalServers]:
    kafka, s3 = request.param
    s3 = quick_s3 if s3 == "quick" else s3
    for kind in (kafka, s3):
        need(kind)
    # A path longer than the address of a Unix socket may be, with what configuration files trip over.
    data_dir = tmp_path_factory.mktemp("spaced, accentué " + "long" * 20) / "data"
    with LocalServers.start(data_dir, kafka=kafka, s3=s3) as running:
        yield running
        pids = [running.kafka.pid, running.s3.pid]
    assert gone(pid for pid in pids if pid)
    assert LocalServers.attach(data_dir) is None


def test_they_say_what_they_are(servers: LocalServers) -> None:
    names = {"apache-kafka 4.3.1", "tansu 0.6", "minio 2026-02-12", "seaweedfs 4.48"}
    assert {servers.kafka.name, servers.s3.name} <= names
    assert servers.describe() == (
        f"Kafka: {servers.kafka.program.title} {servers.kafka.program.version} (as asked for) "
        f"at {servers.bootstrap_servers} · "
        f"S3: {servers.s3.program.title} {servers.s3.program.version} (as asked for) at {servers.s3_endpoint}"
    )
    assert servers.environment() == {
        "LINEWATCH_KAFKA__BOOTSTRAP_SERVERS": servers.bootstrap_servers,
        "LINEWATCH_TOPICS__REPLICATION_FACTOR": "1",
        "LINEWATCH_TOPICS__MIN_INSYNC_REPLICAS": "1",
        "LINEWATCH_S3__ENDPOINT": f"http://{servers.s3_endpoint}",
        "LINEWATCH_S3__ACCESS_KEY": servers.access_key,
        "LINEWATCH_S3__SECRET_KEY": servers.secret_key,
    }


def test_they_listen_on_the_loopback_interface_only(servers: LocalServers) -> None:
    assert servers.kafka.pid
    assert servers.s3.pid
    listening = listening_addresses([servers.kafka.pid, servers.s3.pid])
    kafka, s3 = servers.kafka.program, servers.s3.program
    expected = {port for program in (kafka, s3) for port in program.ports.values()}
    expected |= {port + s3.twin_offset for port in s3.ports.values()}
    assert {port for _, port in listening} == expected
    assert [entry for entry in listening if not is_loopback(entry[0])] == []


def test_no_credentials_on_command_lines_in_logs_or_open_files(servers: LocalServers) -> None:
    assert servers.kafka.pid
    assert servers.s3.pid
    for server in (servers.kafka, servers.s3):
        for process in [psutil.Process(server.pid), *psutil.Process(server.pid).parents()[:1]]:
            assert servers.secret_key not in " ".join(process.cmdline())
        assert servers.secret_key not in server.log.read_text()
        assert server.log.stat().st_mode & 0o777 == 0o600
    for name in ("servers.json", "credentials.json"):
        assert (servers.data_dir / name).stat().st_mode & 0o777 == 0o600
    assert servers.secret_key not in (servers.data_dir / "servers.json").read_text()
    assert servers.data_dir.stat().st_mode & 0o777 == 0o700


def test_the_store_refuses_who_has_no_key(servers: LocalServers) -> None:
    pool = urllib3.PoolManager()
    for method in ("GET", "PUT", "DELETE"):
        response = pool.request(method, f"http://{servers.s3_endpoint}/linewatch-ready/key", body=b"x")
        assert response.status == 403
    pool.clear()


def test_another_process_finds_them_and_does_not_start_them_twice(servers: LocalServers) -> None:
    found = LocalServers.attach(servers.data_dir)
    assert found is not None
    assert found.environment() == servers.environment()
    assert (found.kafka.pid, found.s3.pid) == (servers.kafka.pid, servers.s3.pid)
    assert found.describe() == servers.describe()
    with found:
        pass
    assert servers.kafka.alive, "leaving a `with` stops only what it started"
    with pytest.raises(AlreadyRunning, match="run already"):
        LocalServers.start(servers.data_dir)


def test_acknowledged_data_survives_kill_9(servers: LocalServers) -> None:
    produce(servers, 100)
    put(servers, "a/mask.png", b"\x89PNG" * 1000)
    addresses = (servers.bootstrap_servers, servers.s3_endpoint)

    servers.kafka.kill()
    servers.s3.kill()
    assert not servers.kafka.alive
    assert not servers.s3.alive
    assert LocalServers.attach(servers.data_dir) is None
    servers.s3.start()
    servers.kafka.start()

    assert (servers.bootstrap_servers, servers.s3_endpoint) == addresses
    assert consume(servers, 100) == list(range(100))
    assert get(servers, "a/mask.png") == b"\x89PNG" * 1000


def test_a_restart_keeps_address_and_data(servers: LocalServers) -> None:
    put(servers, "kept", b"still here")
    before = servers.s3.pid
    servers.s3.restart()
    assert servers.s3.pid != before
    assert get(servers, "kept") == b"still here"


@pytest.mark.parametrize(("kafka", "s3"), [("tansu", "minio"), ("tansu", "seaweedfs")])
def test_a_taken_port_is_replaced_and_the_data_found_again(
    data_dir: Path, need: Callable[[str], None], kafka: Any, s3: Any
) -> None:
    from tests.infra.test_ports import listen

    need(s3)
    with LocalServers.start(data_dir, kafka=kafka, s3=s3) as servers:
        produce(servers, 10)
        put(servers, "kept", b"still here")
        before = (servers.bootstrap_servers, servers.s3_endpoint)
    said: list[str] = []
    with (
        listen(LOOPBACK, int(before[0].split(":")[1])),
        listen(LOOPBACK, int(before[1].split(":")[1])),
        LocalServers.start(data_dir, kafka=kafka, s3=s3, say=said.append) as servers,
    ):
        assert not {servers.bootstrap_servers, servers.s3_endpoint} & set(before)
        assert consume(servers, 10) == list(range(10))
        assert get(servers, "kept") == b"still here"
    assert sum("is taken by another process" in message for message in said) == 2


def test_without_java_tansu_runs_and_says_why(data_dir: Path, bare_machine: Path) -> None:
    assert bare_machine.is_dir()
    said: list[str] = []
    with LocalServers.start(data_dir, say=said.append) as servers:
        assert servers.describe().startswith("Kafka: Tansu 0.6 (no java found) at 127.0.0.1:")
        assert "SeaweedFS 4.48 (no minio server program on PATH or in the cache)" in servers.describe()
    assert "Starting Tansu (no java found)" in said


def test_started_by_a_thread_they_outlive_it(data_dir: Path) -> None:
    started: list[LocalServers] = []
    thread = threading.Thread(
        target=lambda: started.append(LocalServers.start(data_dir, kafka="tansu", s3="seaweedfs"))
    )
    thread.start()
    thread.join()
    with started[0] as servers:
        put(servers, "key", b"value")
        assert get(servers, "key") == b"value"


def test_when_one_does_not_come_up_none_is_left(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.local.tansu import Tansu

    monkeypatch.setattr(Tansu, "command", lambda _: ["sh", "-c", "echo out of luck; exit 1"])
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(NotReady, match=r"Tansu 0\.6 ended while starting|ended as soon as it was started"):
        LocalServers.start(data_dir, kafka="tansu", s3="seaweedfs")
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before


@pytest.mark.apache
def test_apache_kafka_does_what_tests_of_the_stream_rely_on(data_dir: Path, need: Callable[[str], None]) -> None:
    """Short sessions, large messages, and no topic that comes into being by being asked for."""
    from kafka import KafkaConsumer, KafkaProducer

    need("apache")
    with LocalServers.start(data_dir, kafka="apache", s3="seaweedfs") as servers:
        produce(servers, 2)
        producer = KafkaProducer(
            bootstrap_servers=servers.bootstrap_servers, max_request_size=16_000_000, enable_idempotence=False
        )
        consumer = KafkaConsumer(
            "linewatch.test",
            bootstrap_servers=servers.bootstrap_servers,
            group_id="short",
            session_timeout_ms=1000,
            heartbeat_interval_ms=300,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=16_777_216,
            fetch_max_bytes=33_554_432,
        )
        try:
            producer.send("linewatch.test", value=b"x" * 15_000_000, partition=0).get(timeout=30)
            sizes: list[int] = []
            for _ in range(40):
                for records in consumer.poll(timeout_ms=500).values():
                    sizes += [len(record.value) for record in records]
                if len(sizes) >= 3:
                    break
            assert sorted(sizes) == [1, 1, 15_000_000]
            assert set(consumer.topics()) == {"linewatch.ready", "linewatch.test"}
        finally:
            consumer.close()
            producer.close()
