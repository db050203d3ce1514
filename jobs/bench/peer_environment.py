"""The peer's own virtual environment, made once and kept in the cache: its libraries never meet linewatch's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from infra.local.cache import cache_dir, filling
from model.bench.peer import PeerError

ANOMALIB = "2.7.0"
# As measured in docs/benchmarks.md. torch is the one that linewatch pins, so that both sides run the same.
REQUIREMENTS = (
    f"anomalib[openvino]=={ANOMALIB}",
    "lightning==2.6.6",
    "nncf==3.4.0",
    "numpy==2.4.6",
    "onnx==1.23.2",
    "onnxscript==0.7.2",
    "opencv-python-headless==5.0.0.93",
    "openvino==2026.4.1",
    "timm==1.0.31",
    "torch==2.13.0",
    "torchmetrics==1.9.0",
    "torchvision==0.28.0",
)
NEEDED_BYTES = 7 << 30
INSTALL_TIMEOUT_S = 3600
_MADE = "made-of.txt"


def peer_folder() -> Path:
    return cache_dir() / f"peer-anomalib-{ANOMALIB}"


def peer_python() -> Path | None:
    """The interpreter of a finished environment; none where there is none of these requirements."""
    made = peer_folder() / _MADE
    if not made.is_file() or made.read_text().split() != list(REQUIREMENTS):
        return None
    python = peer_folder() / "bin" / "python"
    return python if python.exists() else None


def make_peer(say: Callable[[str], None]) -> Path:
    """The interpreter of the peer's environment, made if it is not there. Raises PeerError."""
    with filling(peer_folder().name) as cache:
        python = peer_python()
        if python:
            return python
        free = shutil.disk_usage(cache).free
        if free < NEEDED_BYTES:
            raise PeerError(
                f"anomalib's environment takes about {NEEDED_BYTES >> 30} GB in {cache} and {free / 2**30:.1f} GB are "
                "free; make room, or let XDG_CACHE_HOME name a folder on a larger disk"
            )
        say(f"Installing anomalib {ANOMALIB} into {peer_folder()}: a download of 3 GB, once")
        log = cache / f"{peer_folder().name}.log"
        _run([sys.executable, "-m", "venv", "--clear", str(peer_folder())], log)
        python = peer_folder() / "bin" / "python"
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *REQUIREMENTS]
        _run(pip, log)
        (peer_folder() / _MADE).write_text("\n".join(REQUIREMENTS) + "\n")
        return python


def _run(command: list[str], log: Path) -> None:
    with log.open("ab") as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=output, timeout=INSTALL_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerError(f"anomalib's environment can't be made: {error}; the log is {log}") from error
    if done.returncode:
        raise PeerError(
            f"anomalib's environment can't be made: {_last_line(log)} (the whole log is {log}). It needs a package "
            "index with anomalib and torch, Python's venv module and no firewall between; run without --peer to "
            "measure linewatch alone"
        )


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["nothing was printed"])[-1].strip()[:300]
