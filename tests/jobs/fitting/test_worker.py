"""A fit's process lets replicas go first, whatever priority its cluster gave it."""

import subprocess
import sys

import pytest

BEGUN = """
import os, sys
from jobs.fitting import worker

worker.train = lambda config: print(os.getpriority(os.PRIO_PROCESS, 0))
os.setpriority(os.PRIO_PROCESS, 0, int(sys.argv[1]))
if os.getuid() == 0:
    os.setuid(65534)  # who is not root may not take a higher priority again
worker.begin({})
"""


@pytest.mark.parametrize(("given", "taken"), [(0, 5), (15, 15)])
def test_a_fit_comes_after_replicas_and_takes_no_more_than_it_was_given(given: int, taken: int) -> None:
    done = subprocess.run([sys.executable, "-c", BEGUN, str(given)], capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == [str(taken)], done.stderr
