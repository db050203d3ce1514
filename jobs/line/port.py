"""The port of the REST endpoint, kept for one `linewatch serve`: Ray's own sockets would share it with another's."""

import errno
import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ServingError
from pipeline.settings import Settings

ASK_S = 2.0


@contextmanager
def reserve_port(settings: Settings) -> Iterator[None]:
    """Nobody else can take serving.port meanwhile, but for Ray, which binds it for sharing, as this does.

    Raises:
        ServingError: it is taken, or can't be had.
    """
    host, port = settings.serving.host, settings.serving.port
    if port == 0 or settings.serving.ray_address:
        yield  # a free one; or the cluster's head binds it, wherever that is
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ServingError(f"serving.host {host!r} is no address of this machine: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            kept.bind(address)
        except OSError as error:
            raise ServingError(_why(error, host, port)) from None
        # Only once it is ours: bound for sharing from the first, it would share with another `serve`; and by an address
        # that may be used again, which gets past connections that have just ended, another could bind it too.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        who = "another linewatch serves there" if _is_linewatch(host, port) else "another program has it"
        return f"port {port} of {host} is taken: {who}; end it, or choose another port by --port or serving.port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"serving.host {host!r} is no address of this machine"
    return f"port {port} of {host} can't be had: {error.strerror}; choose another by --port or serving.port"


def _is_linewatch(host: str, port: int) -> bool:
    at = "127.0.0.1" if host in ("0.0.0.0", "") else host
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{at}:{port}/healthz", timeout=ASK_S) as answer:
            return "healthy" in json.load(answer)
    except (OSError, ValueError):
        return False
