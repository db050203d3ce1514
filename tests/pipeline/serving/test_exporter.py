"""An exporter outlives a replica, and not the last one: a node that nothing is left on can be taken away."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.serving.exporter import replica_is_here, wait_until_lonely


def test_it_ends_once_nobody_was_there_for_long_enough() -> None:
    there = iter([True, False, True, True])
    asked, ended = [], []

    def somebody() -> bool:
        asked.append(1)
        return next(there, False)

    wait_until_lonely(somebody, lambda: ended.append(len(asked)), lonely_s=0.2, look_s=0.05)
    assert ended
    assert ended[0] >= 7, "three looks more, after the last time that somebody was there"


def test_a_replica_of_this_node_is_known_by_its_process(
    monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    monkeypatch.setattr(os, "getppid", os.getpid)  # as if this process were the node's
    assert not replica_is_here()
    for title, counts in (("ray::ServeReplica:other:App", False), ("ray::ServeReplica:linewatch:Inspection", True)):
        with subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep 60"]) as process:
            eventually(lambda p=process.pid, t=title: t in Path(f"/proc/{p}/cmdline").read_text())
            assert replica_is_here() is counts
            process.kill()
    assert not replica_is_here()
