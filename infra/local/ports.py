"""Free ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Collection, Iterable, Sequence

from infra.local.errors import CannotRun

LOOPBACK = "127.0.0.1"
# Below the range that Linux hands to outgoing connections (32768 and up), so that a port kept for the next start is
# not lent to some client in between. SeaweedFS wants a twin of each port 10,000 higher; twins stay below it too. And
# above the ports that workers of a `ray start` take (10002 to 19999).
FIRST_PORT, LAST_PORT = 20_000, 22_767
ATTEMPTS = 2_000
_random = random.SystemRandom()
# A server listens seconds after its port was drawn. Until then, and at least until this many others are drawn, a bound
# socket that never listens keeps other processes from drawing the same; it does not hinder the server's own bind.
_held: deque[socket.socket] = deque(maxlen=256)


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now; connections that linger after a restart don't count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            # Two sockets with SO_REUSEADDR may both bind; only listening tells whether another one listens.
            probe.listen(1)
        except OSError:
            return False
    return True


def all_free(ports: Iterable[int], twin_offset: int = 0) -> bool:
    return all(is_free(port) and (not twin_offset or is_free(port + twin_offset)) for port in ports)


def draw_ports(names: Sequence[str], *, twin_offset: int = 0, taken: Collection[int] = ()) -> dict[str, int]:
    """One free port for each name, none of `taken`; with `twin_offset`, `port + twin_offset` is free too.

    No other process draws the same until this one has ended, or drawn many more. Drawn at random and not counted
    upwards: the fewer meet. By the system's random numbers, for two programs may have seeded Python's alike.
    """
    drawn: dict[str, int] = {}
    for _ in range(ATTEMPTS):
        if len(drawn) == len(names):
            break
        port = _random.randint(FIRST_PORT, LAST_PORT)
        if port not in taken and port not in drawn.values() and _hold(port, twin_offset):
            drawn[names[len(drawn)]] = port
    if len(drawn) < len(names):
        raise CannotRun(f"No free ports between {FIRST_PORT} and {LAST_PORT} on {LOOPBACK}: end what listens there.")
    return drawn


def _hold(port: int, twin_offset: int) -> bool:
    """Whether nobody uses or holds it, nor its twin; both are this process's from now on."""
    held: list[socket.socket] = []
    for number in {port, port + twin_offset}:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.append(holder)
        try:
            holder.bind((LOOPBACK, number))
        except OSError:
            for one in held:
                one.close()
            return False
        # Only now: with it, the bind above would succeed beside another holder's.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.extend(held)
    return True
