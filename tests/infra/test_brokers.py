"""One broker or three: what is started, recorded, found again and refused. Processes that sleep stand in for Kafka."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from infra.local import LocalServers
from infra.local.apache_kafka import ApacheKafka
from infra.local.choice import choose_kafka
from infra.local.credentials import Credentials
from infra.local.errors import AlreadyRunning, CannotRun, FolderUnusable
from infra.local.kafka_jars import jars_dir
from infra.local.kafka_properties import server_properties
from infra.local.servers import recorded, stop_recorded
from jobs.cli.local import local
from tests.infra.real_servers import gone
from tests.infra.stand_ins import AS_SLEEPER, SLEEPERS
from tests.infra.test_choice import java
from tests.infra.test_process import until

ROOT = Path(__file__).parents[2]
STARTER = """
import sys, time
from pathlib import Path
from infra.local import LocalServers
from tests.infra.stand_ins import sleep_instead
sleep_instead()
with LocalServers.start(Path(sys.argv[1]), kafka="apache", s3="seaweedfs", brokers=3):
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def machine(fake_program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Apache Kafka and SeaweedFS are found, and sleep."""
    fake_program("java", java("17.0.15"))
    jars_dir().mkdir(parents=True)
    for program in SLEEPERS:
        for name, does in AS_SLEEPER.items():
            monkeypatch.setattr(program, name, does)


def start(data_dir: Path, brokers: int | None = None, said: list[str] | None = None) -> LocalServers:
    say = said.append if said is not None else lambda _: None
    return LocalServers.start(data_dir, s3="seaweedfs", brokers=brokers, detach=True, say=say)


def pids(servers: LocalServers) -> list[int]:
    return [server.pid for server in servers.members if server.pid]


@pytest.mark.usefixtures("machine")
def test_three_brokers_have_an_address_a_folder_and_a_log_each(data_dir: Path) -> None:
    servers = start(data_dir, 3)
    assert len(set(pids(servers))) == 4
    assert servers.bootstrap_servers == ",".join(broker.endpoint for broker in servers.brokers)
    assert len({port for broker in servers.brokers for port in broker.program.ports.values()}) == 6
    names = [broker.program.folder.relative_to(data_dir) for broker in servers.brokers]
    assert names == [Path("kafka/apache-cluster") / number for number in "123"]
    assert [broker.log.name for broker in servers.brokers] == [f"apache-kafka-{number}.log" for number in "123"]
    assert servers.bootstrap_servers in servers.describe()
    told = servers.environment()
    assert told["LINEWATCH_KAFKA__BOOTSTRAP_SERVERS"] == servers.bootstrap_servers
    assert told["LINEWATCH_TOPICS__REPLICATION_FACTOR"] == "3"
    assert told["LINEWATCH_TOPICS__MIN_INSYNC_REPLICAS"] == "2"


@pytest.mark.usefixtures("machine")
def test_one_broker_is_the_default_and_stays_where_it_was(data_dir: Path) -> None:
    servers = start(data_dir)
    assert [broker.program.folder.relative_to(data_dir) for broker in servers.brokers] == [Path("kafka/apache")]
    assert servers.kafka.log.name == "apache-kafka.log"
    told = servers.environment()
    assert told["LINEWATCH_TOPICS__REPLICATION_FACTOR"] == told["LINEWATCH_TOPICS__MIN_INSYNC_REPLICAS"] == "1"


@pytest.mark.usefixtures("machine")
def test_a_record_of_the_one_broker_without_a_list_is_still_understood(data_dir: Path) -> None:
    ports = start(data_dir).kafka.program.ports
    record = data_dir / "servers.json"
    told = json.loads(record.read_text())
    [told["kafka"]] = told["kafka"]
    record.write_text(json.dumps(told))

    found = LocalServers.attach(data_dir)
    assert found is not None
    assert found.kafka.program.ports == ports
    assert stop_recorded(data_dir)
    assert start(data_dir).kafka.program.ports == ports


def test_a_record_without_a_broker_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "servers.json").write_text('{"kafka": [], "s3": {}, "owner": null}')
    with pytest.raises(FolderUnusable, match="it names no broker"):
        recorded(data_dir)


@pytest.mark.usefixtures("machine")
def test_of_three_one_may_be_down_and_not_two(data_dir: Path) -> None:
    first = start(data_dir, 3)
    all_of_them = pids(first)
    first.brokers[1].kill()
    found = LocalServers.attach(data_dir)
    assert found is not None
    assert [broker.alive for broker in found.brokers] == [True, False, True]
    assert not found.complete
    assert found.bootstrap_servers == first.bootstrap_servers, "a client needs all addresses, one comes back"

    said: list[str] = []
    found.start_missing(said.append)
    assert said == [f"Starting Apache Kafka at {first.brokers[1].endpoint} again"]
    assert found.complete
    found = LocalServers.attach(data_dir)
    assert found is not None
    assert [found.brokers[number].pid for number in (0, 2)] == [first.brokers[number].pid for number in (0, 2)]

    found.brokers[0].kill()
    found.brokers[2].kill()
    assert LocalServers.attach(data_dir) is None
    assert stop_recorded(data_dir)
    assert gone(all_of_them + pids(found))


@pytest.mark.usefixtures("machine")
def test_what_is_left_of_the_four_is_ended_before_all_start_again(data_dir: Path) -> None:
    first = start(data_dir, 3)
    first.s3.kill()
    left = pids(first)
    assert len(left) == 3
    said: list[str] = []
    second = start(data_dir, said=said)
    assert "Of the 4 servers" in said[0]
    assert "these still run: apache, apache, apache" in said[0]
    assert gone(left)
    assert second.complete
    with pytest.raises(AlreadyRunning):
        start(data_dir)


@pytest.mark.usefixtures("machine")
def test_none_of_the_four_outlives_a_killed_starter(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER, str(data_dir)], stdout=subprocess.PIPE, cwd=ROOT) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        started = psutil.Process(starter.pid).children(recursive=True)
        assert len(started) == 8, "four servers, each with its keeper"
        starter.send_signal(signal.SIGKILL)
        assert until(lambda: gone(process.pid for process in started), within_s=60)
    found = recorded(data_dir)
    assert found is not None
    assert [server.alive for server in found.members] == [False] * 4
    assert start(data_dir).complete, "and it is three again"


@pytest.mark.usefixtures("machine")
def test_a_folder_keeps_its_number_of_brokers_and_their_ports(data_dir: Path) -> None:
    three = start(data_dir, 3).bootstrap_servers
    assert stop_recorded(data_dir)
    assert start(data_dir).bootstrap_servers == three
    assert stop_recorded(data_dir)
    said: list[str] = []
    one = start(data_dir, 1, said)
    assert said[0] == "`--brokers 1` has its data apart from that of `--brokers 3`, which ran here last"
    assert [broker.program.folder.name for broker in one.brokers] == ["apache"]
    assert one.kafka.endpoint not in three


@pytest.mark.usefixtures("machine")
def test_a_taken_port_of_a_broker_is_replaced(data_dir: Path) -> None:
    from tests.infra.test_ports import listen

    first = start(data_dir, 3)
    assert stop_recorded(data_dir)
    said: list[str] = []
    with listen(port=first.brokers[2].program.ports["controller"]):
        second = start(data_dir, said=said)
    assert sum("is taken by another process" in message for message in said) == 1
    assert second.brokers[2].program.ports != first.brokers[2].program.ports


def test_each_broker_knows_all_voters_and_keeps_what_kafka_needs_three_times() -> None:
    cluster = [{"main": 100 + number, "controller": 200 + number} for number in range(3)]
    told = dict(line.split("=", 1) for line in server_properties(2, cluster, majority=2).splitlines())
    assert told["node.id"] == "2"
    assert told["controller.quorum.voters"] == "1@127.0.0.1:200,2@127.0.0.1:201,3@127.0.0.1:202"
    assert told["advertised.listeners"] == "PLAINTEXT://127.0.0.1:101"
    copies = {name: value for name, value in told.items() if name.endswith("replication.factor")}
    in_sync = {name: value for name, value in told.items() if re.search("min.isr|min.insync", name)}
    assert (len(copies), set(copies.values())) == (3, {"3"})
    assert (len(in_sync), set(in_sync.values())) == (3, {"2"})
    alone = dict(line.split("=", 1) for line in server_properties(1, cluster[:1], majority=1).splitlines())
    assert {alone[name] for name in (*copies, *in_sync)} == {"1"}


def test_a_broker_takes_the_cluster_id_of_the_others(tmp_path: Path) -> None:
    cluster = ({"main": 1, "controller": 2}, {"main": 3, "controller": 4})

    def broker(number: int) -> ApacheKafka:
        return ApacheKafka("java", "4", "", tmp_path / str(number), cluster, Credentials("a", "b"), number=number)

    first = broker(1)._cluster_id()
    assert first != broker(1)._cluster_id(), "drawn"
    (tmp_path / "1" / "log").mkdir(parents=True)
    (tmp_path / "1" / "log" / "meta.properties").write_text(f"#\nversion=1\ncluster.id={first}\nnode.id=1\n")
    assert broker(2)._cluster_id() == first


def test_tansu_cannot_be_three(bare_machine: Path) -> None:
    assert bare_machine.is_dir()
    with pytest.raises(CannotRun, match="Tansu is always one broker, not 3"):
        choose_kafka("tansu", None, lambda _: None, brokers=3)
    with pytest.raises(CannotRun, match=r"no java found; Tansu is always one broker.*Install Java 17"):
        choose_kafka("auto", "tansu", lambda _: None, brokers=3)


@pytest.mark.usefixtures("machine")
def test_a_folder_in_tansu_gets_three_of_apache_kafka_when_asked_and_is_told(data_dir: Path) -> None:
    said: list[str] = []
    chosen = choose_kafka("auto", "tansu", said.append, brokers=3)
    assert chosen.program.kind == "apache"
    assert said == ["This folder's data so far is in Tansu; Apache Kafka starts without it (Tansu's is kept)"]
    with pytest.raises(CannotRun, match="2 brokers cannot be started: choose 1, or 3"):
        start(data_dir, 2)


def test_up_with_three_brokers_says_what_is_in_the_way(data_dir: Path, bare_machine: Path) -> None:
    assert bare_machine.is_dir()

    def refusal(*words: str) -> str:
        result = CliRunner().invoke(local, ["up", "--brokers", "3", *words, "--data-dir", str(data_dir)])
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        return result.output

    assert "`--brokers 1`" in refusal("--kafka", "tansu")
    assert "Install Java 17" in refusal()
    assert "Install Java 17" in refusal("--kafka", "apache")
    assert CliRunner().invoke(local, ["up", "--brokers", "2"]).exit_code == 2


@pytest.mark.usefixtures("machine")
def test_up_status_and_down_with_three(data_dir: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(local, [*words, "--data-dir", str(data_dir)])
        return result.exit_code, result.output

    assert run("up", "--brokers", "3")[0] == 0
    code, shown = run("status")
    assert (code, shown.count("Kafka"), shown.count("running")) == (0, 3, 4)
    code, shown = run("up", "--brokers", "1")
    assert code == 1
    assert "as `--brokers 3` runs in" in shown
    servers = LocalServers.attach(data_dir)
    assert servers is not None

    servers.brokers[0].kill()
    code, shown = run("status")
    assert (code, shown.count("running"), shown.count("stopped")) == (1, 3, 1)
    assert "LINEWATCH_TOPICS__REPLICATION_FACTOR=3" in run("env")[1]
    code, shown = run("up")
    assert code == 0
    assert f"Starting Apache Kafka at {servers.brokers[0].endpoint} again" in shown
    assert run("status")[0] == 0
    assert run("down") == (0, "Stopped.\n")
