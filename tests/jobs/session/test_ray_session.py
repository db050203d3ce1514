"""A private Ray ends with the job: the machine is left as it was."""

import subprocess
import sys

import psutil
import pytest

from jobs.session import ray_session as module

ALONE = """
import os
import psutil
from jobs.session.ray_session import ray_session
from pipeline.settings import Settings

with ray_session(Settings.from_values({}, where="the test")):
    import ray  # reads the environment that the session has set
    during = psutil.Process().children(recursive=True)
    niceness = ray.get(ray.remote(lambda: os.nice(0)).remote())
print(niceness - os.nice(0), len(during), sum(process.is_running() for process in during))
"""


@pytest.mark.ray
def test_a_private_ray_competes_as_any_process_does_and_leaves_none_when_it_returns() -> None:
    """In a process of its own: tests of this one may share a Ray that goes on."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=240, check=True)
    niceness, begun, left = (int(count) for count in done.stdout.split()[-3:])
    assert niceness == 0
    assert begun > 3
    assert left == 0


SIGNALLED = """
import os, signal, sys
from jobs.session import ending
from jobs.session.ray_session import ray_session
from pipeline.settings import Settings

ending.listen()
try:
    with ray_session(Settings.from_values({}, where="the test")):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
except KeyboardInterrupt:
    print("ended by", ending.received().name)
os.kill(os.getpid(), signal.SIGINT)  # Ray has put its own handlers back where they were
"""


@pytest.mark.ray
def test_a_job_within_ray_ends_by_sigterm_as_by_ctrl_c_and_leaves_no_stack_dump() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED, "SIGTERM"], capture_output=True, text=True, timeout=240)
    assert done.stdout.split("\n")[0] == "ended by SIGTERM", done.stderr
    assert "SIGTERM received" not in done.stderr, "Ray's own handler printed a stack"
    assert "KeyboardInterrupt" in done.stderr.splitlines()[-1]


def test_what_does_not_leave_by_itself_is_ended_and_nothing_else() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep) as left, subprocess.Popen(sleep) as other:
        module._see_off({psutil.Process(left.pid)}, leave_s=0.2)
        assert not psutil.pid_exists(left.pid)
        assert psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE
        other.kill()
