"""Programs that their projects publish as Go sources: built by `go install` for the cache."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.local.errors import FetchFailed

# From here on `go` fetches the newer toolchain that the sources ask for by itself.
OLDEST_GO = (1, 21)


def find_go() -> tuple[str | None, str]:
    """The path of `go` and its version such as "1.26.8"; (None, why) where it cannot build."""
    go = shutil.which("go")
    if go is None:
        return None, "no go on PATH"
    told = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False).stdout
    match = re.search(r"go(\d+)\.(\d+)(\S*)", told)
    if not match or (int(match[1]), int(match[2])) < OLDEST_GO:
        return None, f"{told.strip() or go} is older than {'.'.join(map(str, OLDEST_GO))}"
    return go, f"{match[1]}.{match[2]}{match[3]}"


def go_install(words: Sequence[str], scratch: Path, usual_s: float, progress: Callable[[float], None]) -> None:
    """`go install` with these words into `scratch`; `words` begin with the path of `go`.

    `progress` is called about once a second with the share of the usual time that has passed, below 1.

    Raises:
        FetchFailed: with what Go said last.
    """
    environment = {**os.environ, "GOBIN": str(scratch), "CGO_ENABLED": "0"}
    go, *rest = words
    command = [go, "install", *rest]
    log = scratch / "go.log"
    with log.open("wb") as output:
        # In a session of its own: Go's compilers are its children, and are ended with it.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        started = time.monotonic()
        try:
            while process.poll() is None:
                progress(min(0.99, (time.monotonic() - started) / usual_s))
                time.sleep(0.5)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
        raise FetchFailed(f"Go could not build it (`{' '.join(command)}`); it said last:\n{tail}")
