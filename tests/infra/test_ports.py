from __future__ import annotations

import random
import socket

import pytest

from infra.local import ports
from infra.local.errors import CannotRun


def listen(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    return listener


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_someone_listens_on_is_not_free(address: str) -> None:
    with listen(address) as taken:
        assert not ports.is_free(taken.getsockname()[1])


def test_drawn_ports_differ_and_are_below_those_of_outgoing_connections() -> None:
    drawn = ports.draw_ports(["main", "second", "third"], twin_offset=10_000)
    assert list(drawn) == ["main", "second", "third"]
    assert len(set(drawn.values())) == 3
    assert all(port + 10_000 < 32_768 for port in drawn.values())


def test_programs_that_seed_pythons_random_numbers_alike_draw_other_ports() -> None:
    drawn = []
    for _ in range(2):
        random.seed(0)
        drawn.append(ports.draw_ports(["main", "second", "third"]))
    assert drawn[0] != drawn[1]


def test_a_port_is_not_drawn_when_its_twin_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = ports.draw_ports(["main"], twin_offset=10_000).values()
    monkeypatch.setattr(ports, "FIRST_PORT", port)
    monkeypatch.setattr(ports, "LAST_PORT", port)
    with listen(port=port + 10_000):
        assert ports.draw_ports(["main"]) == {"main": port}
        with pytest.raises(CannotRun, match="No free ports"):
            ports.draw_ports(["main"], twin_offset=10_000)
