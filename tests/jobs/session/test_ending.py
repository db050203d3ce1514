"""Ctrl-C and SIGTERM: what was begun is undone, one line says so, and the status says which it was."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMAND = """
import sys, threading, click
from jobs.cli import main

@main.command("wait")
def wait():
    try:
        print("waiting", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        if sys.argv[1] == "ends in order":
            return
        if sys.argv[1] == "fails at its end":
            raise RuntimeError("what it did was cut off") from None
        raise
    finally:
        print("undone", flush=True)

main(["wait"])
"""


def ended(how: str, number: signal.Signals) -> tuple[int, str, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGINT, 130, "Ended by Ctrl-C.\n"), (signal.SIGTERM, 143, "Ended by SIGTERM.\n")],
)
@pytest.mark.parametrize("how", ["is cut off", "fails at its end"])
def test_a_command_that_is_ended_undoes_what_it_began_and_says_so_in_one_line(
    how: str, number: signal.Signals, status: int, line: str
) -> None:
    assert ended(how, number) == (status, "undone\n", line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_runs_until_it_is_ended_has_done_its_work(number: signal.Signals) -> None:
    assert ended("ends in order", number) == (0, "undone\n", "")
