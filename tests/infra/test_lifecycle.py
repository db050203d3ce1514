"""However the starter ends, no server is left; and however the last run ended, the next one starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local import LocalServers
from infra.local.errors import Busy
from infra.local.process import Identity
from infra.local.servers import delete_data, recorded, stop_recorded
from infra.local.state import locked, prepare_data_dir, read_state, write_state
from tests.infra.real_servers import get, gone, put
from tests.infra.test_process import until

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]
STORE = {"minio": "minio server", "seaweedfs": "weed"}

STARTER = """
import signal, sys, time
from pathlib import Path
from typing import Any
from infra.local import LocalServers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
with LocalServers.start(Path(sys.argv[1]), kafka="tansu", s3=sys.argv[2]) as servers:
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_no_server_outlives_its_starter(data_dir: Path, quick_s3: str, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(data_dir), quick_s3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
        started = psutil.Process(starter.pid).children(recursive=True)
        names = str([" ".join(process.cmdline()) for process in started])
        assert STORE[quick_s3] in names
        assert "tansu" in names
        # As a terminal does it: to everyone in the foreground's process group.
        os.killpg(starter.pid, how)
        starter.communicate(timeout=30)
        assert until(lambda: gone(process.pid for process in started), within_s=60)
    assert LocalServers.attach(data_dir) is None


def test_detached_ones_outlive_their_starter_and_are_ended_from_the_record(data_dir: Path, quick_s3: Any) -> None:
    script = STARTER.replace("s3=sys.argv[2])", "s3=sys.argv[2], detach=True)").replace("time.sleep(100)", "")
    subprocess.run([sys.executable, "-c", script, str(data_dir), quick_s3], cwd=ROOT, check=True, timeout=60)
    servers = LocalServers.attach(data_dir)
    assert servers is not None
    put(servers, "key", b"value")
    pids = [pid for pid in (servers.kafka.pid, servers.s3.pid) if pid]

    servers.s3.kill()
    assert LocalServers.attach(data_dir) is None
    servers.s3.start()
    assert get(servers, "key") == b"value"
    pids += [servers.s3.pid or 0]

    assert stop_recorded(data_dir)
    assert gone(pids)
    assert not stop_recorded(data_dir)
    delete_data(data_dir)
    assert not data_dir.exists()


def test_a_detached_start_that_is_killed_half_way_leaves_nothing(data_dir: Path, quick_s3: Any) -> None:
    """Killed when the S3 store is up and Tansu is about to start."""
    script = STARTER.replace(
        "s3=sys.argv[2])",
        "s3=sys.argv[2], detach=True, say=lambda m: 'Tansu' in m and (print(m, flush=True), time.sleep(100)))",
    )
    command = [sys.executable, "-c", script, str(data_dir), quick_s3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith("Starting Tansu")
        started = psutil.Process(starter.pid).children(recursive=True)
        assert STORE[quick_s3] in str([" ".join(process.cmdline()) for process in started])
        starter.kill()
        starter.stdout.close()
        assert until(lambda: gone(process.pid for process in started), within_s=60)
    found = recorded(data_dir)
    assert found is None or not found.s3.alive


def test_after_one_of_two_died_both_start_again(data_dir: Path, quick_s3: Any) -> None:
    first = LocalServers.start(data_dir, kafka="tansu", s3=quick_s3, detach=True)
    put(first, "key", b"value")
    first.kafka.kill()
    survivor = first.s3.pid
    assert survivor
    said: list[str] = []
    with LocalServers.start(data_dir, say=said.append) as second:
        assert f"these still run: {quick_s3}. " in said[0]
        assert gone([survivor])
        assert second.s3.program.kind == quick_s3, "the folder's data is in it"
        assert get(second, "key") == b"value"


def test_after_a_reboot_they_start_again_and_nobody_elses_process_is_touched(data_dir: Path, quick_s3: Any) -> None:
    """The record names numbers that other processes have by now: this test's own child."""
    with LocalServers.start(data_dir, kafka="tansu", s3=quick_s3) as servers:
        put(servers, "key", b"value")
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        identity = Identity.of(bystander.pid)
        assert identity is not None
        state = read_state(data_dir)
        assert state is not None
        former = replace(identity, started="the boot before/17")
        state.kafka[0].process = state.s3.process = state.owner = former
        write_state(data_dir, state)

        assert LocalServers.attach(data_dir) is None
        assert not stop_recorded(data_dir)
        with LocalServers.start(data_dir) as servers:
            assert get(servers, "key") == b"value"
        delete_data(data_dir)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_two_starts_at_once_in_one_folder(data_dir: Path, quick_s3: Any) -> None:
    prepare_data_dir(data_dir)
    with locked(data_dir), pytest.raises(Busy, match="Another process is starting or stopping"):
        LocalServers.start(data_dir, kafka="tansu", s3=quick_s3)
    assert recorded(data_dir) is None


def test_only_the_starter_may_restart_what_ends_with_it(data_dir: Path, quick_s3: Any) -> None:
    with LocalServers.start(data_dir, kafka="tansu", s3=quick_s3) as servers:
        found = LocalServers.attach(data_dir)
        assert found is not None
        found.kafka.kill()
        with pytest.raises(Exception, match="belongs to another process"):
            found.kafka.start()
        assert not servers.kafka.alive
        servers.kafka.start()


def test_a_folder_deleted_under_running_servers_does_not_keep_them_alive(
    data_dir: Path, tmp_path: Path, quick_s3: Any
) -> None:
    servers = LocalServers.start(data_dir, kafka="tansu", s3=quick_s3)
    pids = [pid for pid in (servers.kafka.pid, servers.s3.pid) if pid]
    data_dir.rename(tmp_path / "elsewhere")
    servers.stop()
    assert gone(pids)


def test_the_record_of_running_servers_is_complete(data_dir: Path, quick_s3: Any) -> None:
    with LocalServers.start(data_dir, kafka="tansu", s3=quick_s3) as servers:
        told = json.loads((data_dir / "servers.json").read_text())
        assert told["kafka"][0]["process"] == asdict(Identity.of(servers.kafka.pid))  # type: ignore[arg-type]
        assert told["owner"]["pid"] == os.getpid()
    told = json.loads((data_dir / "servers.json").read_text())
    assert told["kafka"][0]["process"] is None
    assert told["kafka"][0]["ports"] == servers.kafka.program.ports
