"""One real server by itself, where a test needs no others beside it, or another one than the session's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local.credentials import Credentials
from infra.local.ports import draw_ports
from infra.local.program import Found, Missing, Program
from infra.local.server import Server

ACCESS, SECRET = "linewatch-access", "linewatch-very-secret-key"


@contextmanager
def alone(program: type[Program], find: Callable[[], Found | Missing], folder: Path, log: Path) -> Iterator[Server]:
    """Started, and stopped on leaving; skips where the machine can't run it."""
    found = find()
    if isinstance(found, Missing):
        pytest.skip(f"{found.why}. {found.how_to_get}")
    described = program(
        binary=found.binary,
        version=found.version,
        why=found.why,
        folder=folder,
        cluster=(draw_ports(program.port_names, twin_offset=program.twin_offset),),
        credentials=Credentials(ACCESS, SECRET),
    )
    server = Server(described, log=log, detach=False, say=lambda _: None)
    server.start()
    try:
        yield server
    finally:
        server.stop()
