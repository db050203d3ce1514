"""Hosts that are network namespaces of this machine, on a switch of their own, whose cables can be pulled."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.local.program import Missing

CLONE_NEWNET = 0x40000000
# RFC 2544: for tests of networks, and routed by nobody.
ADDRESS = "198.18.0.{}"
_FOLDER = Path("/run/netns")
_NAME = re.compile(r"linewatch-(\d+)-\d+")


def find_namespaces() -> Missing | None:
    """What is missing for :class:`Network` here, or None. Tries it out, for a container may forbid it."""
    if shutil.which("ip") is None:
        return Missing("no ip program", "Install iproute2 (Debian: `apt-get install iproute2`).")
    if os.geteuid() != 0:
        return Missing("network namespaces need root", "Run it as root, on a machine or in a privileged container.")
    try:
        with Network(1):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", "") or str(error)
        return Missing(f"network namespaces can't be made here ({told.strip()})", "Run it in a privileged container.")


class Network:
    """So many hosts, numbered from 0, on one switch. Made on entering, and gone, with all cables, on leaving.

    Processes that still run in a namespace keep it alive, without a name: end them first.
    """

    def __init__(self, hosts: int) -> None:
        self.hosts = hosts
        self._mark = f"linewatch-{os.getpid()}"
        self._switch = f"{self._mark}-{hosts}"

    def __enter__(self) -> Network:
        _remove_left_over()
        try:
            _ip("netns", "add", self._switch)
            _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "switch", "up")
            for host in range(self.hosts):
                self._connect(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for host in range(self.hosts + 1):
            if (_FOLDER / f"{self._mark}-{host}").exists():
                _ip("netns", "delete", f"{self._mark}-{host}")

    def address(self, host: int) -> str:
        return ADDRESS.format(host + 1)

    def pull(self, host: int) -> None:
        """The host's cable: packets are dropped both ways, and nobody is told."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "down")

    def plug(self, host: int) -> None:
        """In again; pulled or not."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "up")

    def on(self, host: int, command: Sequence[str]) -> list[str]:
        """The command line that runs ``command`` on that host."""
        return ["ip", "netns", "exec", f"{self._mark}-{host}", *command]

    @contextlib.contextmanager
    def inside(self, host: int) -> Iterator[None]:
        """This thread is on that host, and so is every thread and process that it starts meanwhile.

        Threads that run already stay where they are: enter before there are any that talk to a server.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        thread = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        with open(thread) as home, open(_FOLDER / f"{self._mark}-{host}") as there:
            _enter(libc, there.fileno())
            try:
                yield
            finally:
                _enter(libc, home.fileno())

    def _connect(self, host: int) -> None:
        name, port = f"{self._mark}-{host}", f"port{host}"
        _ip("netns", "add", name)
        cable = ["type", "veth", "peer", "name", port, "netns", self._switch]
        _ip("link", "add", "name", "eth0", "netns", name, *cable)
        _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", "eth0", "up")


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


def _remove_left_over() -> None:
    """Those of a process that was killed."""
    for path in _FOLDER.glob("linewatch-*") if _FOLDER.is_dir() else ():
        told = _NAME.fullmatch(path.name)
        if told and not Path(f"/proc/{told[1]}").exists():
            _ip("netns", "delete", path.name)
