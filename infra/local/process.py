"""One running server process: started through a keeper, known by more than its number, ended without doubt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import NotReady

KEEPER = Path(__file__).with_name("keeper.py")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# What servers may see of this process's environment. Proxies stay out (the servers talk to 127.0.0.1), and so do other
# AWS_* and MINIO_* settings, which would quietly change whom they trust and where they write.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LD_LIBRARY_PATH", "JAVA_HOME")
KILL_WAIT_S = 10.0


@dataclass(frozen=True)
class Identity:
    """A process, not merely a number: numbers are used again, so the start time and the boot belong to it."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """None where no such process runs; one that ended and awaits its parent (a zombie) doesn't run."""
        started = _start_of(pid)
        return cls(pid, started) if started else None

    @property
    def alive(self) -> bool:
        return _start_of(self.pid) == self.started

    def send(self, number: int, *, group: bool = False) -> bool:
        """Signal this very process; False where it is gone, also when its number is someone else's by now."""
        try:
            handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        except OSError:
            return False
        try:
            # Looked at after the handle is open: from here on the handle means this process or nothing.
            if not self.alive:
                return False
            if group and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            elif handle is not None:
                signal.pidfd_send_signal(handle, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        finally:
            if handle is not None:
                os.close(handle)
        return True

    def wait_gone(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def _start_of(pid: int) -> str | None:
    if BOOT_ID.exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The name in parentheses may hold anything; fields count from behind it: state is 3rd, start time 22nd.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{BOOT_ID.read_text().strip()}/{fields[19]}"
    listed = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = listed.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


@dataclass
class Process:
    """A server's process; `keeper` and `lifeline` only where this very Python process started it."""

    identity: Identity
    grace_s: float
    keeper: subprocess.Popen[bytes] | None = None
    lifeline: int | None = None
    end_by: float | None = None

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        grace_s: float,
        detach: bool,
    ) -> Process:
        """Start `command` in a session of its own, so that a Ctrl-C in the terminal does not reach it.

        With `detach` the caller must `release()` it once its record is written; until then it is tied to the caller.
        """
        base = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        read_end, lifeline = os.pipe()
        log_descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), str(grace_s), "released" if detach else "kept", *command],
                stdin=read_end,
                stdout=subprocess.PIPE,
                stderr=log_descriptor,
                cwd=folder,
                env={**base, **environment},
                start_new_session=True,
            )
        finally:
            os.close(read_end)
            os.close(log_descriptor)
        assert keeper.stdout is not None
        with keeper.stdout as answer:
            line = answer.readline()
        identity = Identity.of(int(line)) if line.strip() else None
        if identity is None:
            os.close(lifeline)
            keeper.wait()
            raise NotReady(f"{command[0]} ended as soon as it was started: see {log}")
        return cls(identity, grace_s, keeper, lifeline)

    @property
    def alive(self) -> bool:
        return self.identity.alive

    def release(self) -> None:
        """Let the server outlive this Python process."""
        if self.lifeline is not None:
            os.write(self.lifeline, b"R")
            self._let_keeper_go()

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.identity.send(signal.SIGKILL)
        self.identity.wait_gone(KILL_WAIT_S)
        self._let_keeper_go()

    def ask_to_end(self) -> None:
        """SIGTERM. The grace period begins; `stop()` must follow."""
        if self.end_by is None and self.identity.send(signal.SIGTERM):
            self.end_by = time.monotonic() + self.grace_s

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to the whole group for what did not listen within the grace period."""
        self.ask_to_end()
        if self.end_by is not None and not self.identity.wait_gone(self.end_by - time.monotonic()):
            self.identity.send(signal.SIGKILL, group=True)
            self.identity.wait_gone(KILL_WAIT_S)
        self._let_keeper_go()

    def _let_keeper_go(self) -> None:
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None
        if self.keeper is not None:
            self.keeper.wait()
            self.keeper = None
