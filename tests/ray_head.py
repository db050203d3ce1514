"""A Ray cluster's head as people start one: `ray start --head`, a process of its own with an environment of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.local.ports import draw_ports

HEAD = "127.0.0.2"
STARTS_WITHIN_S = 120.0


def head_ports() -> dict[str, int]:
    """Drawn once a cluster: `gcs` is where it is reached, at `HEAD`."""
    return draw_ports(("gcs", "dashboard", "agent"))


@contextmanager
def ray_head(
    environment: Mapping[str, str], ports: Mapping[str, int], log: Path, folder: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Four processors; until the end of the block.

    Args:
        folder: short, for Ray's sockets lie in it.
    """
    words = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--node-ip-address={HEAD}",
        f"--port={ports['gcs']}", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports['dashboard']}",
        "--num-cpus=4", "--object-store-memory=100000000", "--disable-usage-stats", f"--temp-dir={folder}",
        "--min-worker-port=0", "--max-worker-port=0",
        f"--dashboard-agent-listen-port={ports['agent']}",
    ]  # fmt: skip
    with log.open("w") as file:
        head = subprocess.Popen(
            words, cwd=folder, env=dict(environment), stdout=file, stderr=file, start_new_session=True
        )
        try:
            begun = time.monotonic()
            while "will now block" not in log.read_text():
                assert head.poll() is None, log.read_text()
                assert time.monotonic() - begun < STARTS_WITHIN_S, log.read_text()
                time.sleep(0.2)
            yield head
        finally:
            head.send_signal(signal.SIGTERM)
            try:
                head.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait(10)
