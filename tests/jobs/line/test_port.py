"""The port of the REST endpoint belongs to one `serve`."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from jobs.line.port import reserve_port
from pipeline.errors import ServingError
from pipeline.settings import Settings


def settings(port: int, **serving: str) -> Settings:
    return Settings.from_values({"serving": {"port": port, **serving}})


class Healthz(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"healthy": true, "reason": null}')

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def linewatch_serves() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Healthz) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_that_another_linewatch_serves_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which is not asked
    with linewatch_serves() as port, pytest.raises(ServingError, match="another linewatch serves there"):
        reserve_port(settings(port)).__enter__()


def test_a_port_of_another_program_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} of 127.0.0.1 is taken: another program has it"):
            reserve_port(settings(port)).__enter__()


def test_two_that_start_at_once_do_not_share_a_port_but_ray_shares_it_with_its_serve() -> None:
    port = free_port()
    with reserve_port(settings(port)):
        with pytest.raises(ServingError, match="is taken"):
            reserve_port(settings(port)).__enter__()
        with socket.socket() as ray:
            ray.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            ray.bind(("127.0.0.1", port))
            ray.listen()
            socket.create_connection(("127.0.0.1", port)).close()  # the reserving socket takes none of its connections
            accepted, _ = ray.accept()
            accepted.close()
    with reserve_port(settings(port)):
        """Free again."""


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    with pytest.raises(ServingError, match=f"serving.host '{host}' is no address of this machine"):
        reserve_port(settings(free_port(), host=host)).__enter__()


def test_a_free_port_and_a_clusters_are_not_reserved() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with reserve_port(settings(0)):
            """Ray is given one that is free."""
        taken = other.getsockname()[1]
        with pytest.raises(ServingError, match="is taken"):
            reserve_port(settings(taken)).__enter__()
        with reserve_port(settings(taken, ray_address="head:6379")):
            """That machine may be another."""
