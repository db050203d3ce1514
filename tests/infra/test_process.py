from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.local.errors import NotReady
from infra.local.process import Identity, Process

ROOT = Path(__file__).parents[2]


def spawn(folder: Path, *command: str, detach: bool = False, grace_s: float = 5.0) -> Process:
    return Process.spawn(
        command, environment={"SECRET": "s3cr3t"}, folder=folder, log=folder / "log", grace_s=grace_s, detach=detach
    )


def until(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_stop_ends_the_server_and_its_keeper(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sleep", "60")
    assert process.keeper is not None
    keeper, server = process.keeper.pid, process.identity.pid
    assert process.alive
    process.stop()
    assert not process.alive
    assert not psutil.pid_exists(keeper)
    assert not psutil.pid_exists(server)


def test_what_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60", grace_s=0.2)
    assert until(lambda: bool(psutil.Process(process.identity.pid).children()))
    [child] = psutil.Process(process.identity.pid).children()
    process.stop()
    assert not process.alive
    assert until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_servers_children_end_with_it(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sh", "-c", "sleep 60 & wait")
    assert until(lambda: bool(psutil.Process(process.identity.pid).children()))
    [child] = psutil.Process(process.identity.pid).children()
    process.kill()
    assert until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_output_goes_to_a_private_log_and_the_session_is_its_own(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sh", "-c", "echo out; echo err >&2; pwd; sleep 60")
    try:
        assert until(lambda: (tmp_path / "log").read_text() == f"out\nerr\n{tmp_path}\n")
        assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
        assert os.getsid(process.identity.pid) == process.identity.pid
    finally:
        process.stop()


def test_a_program_that_is_not_there_is_told_in_the_log(tmp_path: Path) -> None:
    # Whether the process is seen before it has ended is a matter of luck.
    with contextlib.suppress(NotReady):
        process = spawn(tmp_path, str(tmp_path / "nothing"))
        assert until(lambda: not process.alive)
        process.stop()
    assert "nothing could not be started" in (tmp_path / "log").read_text()


def test_one_that_is_stopped_at_once_does_not_miss_the_signal(tmp_path: Path) -> None:
    began = time.monotonic()
    for _ in range(10):
        spawn(tmp_path, "sleep", "60", grace_s=60.0).stop()
    assert time.monotonic() - began < 30


def test_it_does_not_end_with_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[Process] = []
    thread = threading.Thread(target=lambda: started.append(spawn(tmp_path, "sleep", "60")))
    thread.start()
    thread.join()
    time.sleep(0.3)
    [process] = started
    assert process.alive
    process.stop()


def test_it_ends_when_its_keeper_is_killed(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sleep", "60")
    assert process.keeper is not None
    process.keeper.kill()
    assert until(lambda: not process.alive)
    process.stop()


def test_a_released_one_needs_no_keeper(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sleep", "60", detach=True)
    assert process.keeper is not None
    keeper = process.keeper.pid
    process.release()
    assert not psutil.pid_exists(keeper)
    assert process.alive
    process.stop()
    assert not process.alive


STARTER = """
import os, sys, time
from pathlib import Path
from infra.local.process import Process
folder = Path(sys.argv[1])
process = Process.spawn(["sleep", "60"], environment={}, folder=folder, log=folder / "log", grace_s=1, detach=False)
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(60)
print(process.identity.pid, process.identity.started, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("forks", ["no", "fork"], ids=["alone", "a forked child holds the lifeline"])
def test_it_ends_when_its_starter_is_killed(tmp_path: Path, forks: str) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path), forks]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as starter:
        assert starter.stdout is not None
        pid, started = starter.stdout.readline().split()
        server = Identity(int(pid), started)
        assert server.alive
        children = [child for child in psutil.Process(starter.pid).children() if "keeper" not in str(child.cmdline())]
        starter.send_signal(signal.SIGKILL)
        starter.stdout.close()
        assert until(lambda: not server.alive)
        for child in children:
            child.kill()


def test_a_number_that_is_used_again_is_not_the_process(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sleep", "60")
    former = replace(process.identity, started="another boot/1")
    assert not former.alive
    assert not former.send(signal.SIGKILL)
    assert not former.send(signal.SIGKILL, group=True)
    Process(former, grace_s=0.1).stop()
    Process(former, grace_s=0.1).kill()
    assert process.alive
    process.stop()


def test_a_process_that_never_was_or_is_a_zombie_is_not_alive() -> None:
    assert Identity.of(2**22 + 1) is None
    with subprocess.Popen(["true"]) as child:
        assert until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert Identity.of(child.pid) is None
