from __future__ import annotations

import random
import socket
import subprocess
import sys

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


def test_a_drawn_port_is_not_drawn_by_another_process() -> None:
    [port] = ports.draw_ports(["main"], twin_offset=10_000).values()
    other = f"""
from infra.local import ports
ports.FIRST_PORT = ports.LAST_PORT = {port}
try:
    print(ports.draw_ports(["main"]))
except ports.CannotRun as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("No free ports")


def test_the_server_that_a_port_was_drawn_for_can_listen_there_and_again_after_it_ended() -> None:
    drawn = ports.draw_ports(["main"], twin_offset=10_000)
    for port in (drawn["main"], drawn["main"] + 10_000):
        for _ in range(2):
            with listen(port=port), socket.create_connection(("127.0.0.1", port)):
                assert not ports.is_free(port)
        assert ports.is_free(port), "for the next start"


def test_a_port_is_not_drawn_when_its_twin_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = ports.draw_ports(["main"], twin_offset=10_000).values()
    monkeypatch.setattr(ports, "FIRST_PORT", port)
    monkeypatch.setattr(ports, "LAST_PORT", port)
    ports._held.clear()
    with listen(port=port + 10_000):
        assert ports.draw_ports(["main"]) == {"main": port}
        ports._held.clear()
        with pytest.raises(CannotRun, match="No free ports"):
            ports.draw_ports(["main"], twin_offset=10_000)
