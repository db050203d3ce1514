"""Metrics over HTTP: behind the same tokens as REST, and told where the port can't be had."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.ports import free_port
from pipeline.errors import ServingError
from pipeline.serving.metrics_server import MetricsServer

TOKEN, VARIABLE = "metrics-token-0123456789", "LINEWATCH_SERVING__TOKENS"


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer("127.0.0.1", free_port(), {}, lambda: b"linewatch_replicas 1.0\n")
    made.ready()
    yield made
    made.close()


def ask(server: MetricsServer, token: str | None = None, path: str = "/metrics") -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_without_tokens_whoever_reaches_it_is_answered(server: MetricsServer) -> None:
    assert ask(server) == (200, b"linewatch_replicas 1.0\n")
    assert ask(server, path="/other")[0] == 404


def test_with_tokens_only_they_are(server: MetricsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, f"{TOKEN} another-token-0123456789")
    assert ask(server)[0] == 401
    assert ask(server, "wrong")[0] == 401
    assert ask(server, TOKEN)[0] == 200
    monkeypatch.delenv(VARIABLE)
    file = tmp_path / "tokens"
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(file))
    assert ask(server, TOKEN)[0] == 503, "no file lets nobody in"
    file.write_text("rotated-token-0123456789\n")
    assert ask(server, TOKEN)[0] == 401
    assert ask(server, "rotated-token-0123456789")[0] == 200


def test_a_port_that_is_taken_is_told(server: MetricsServer) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(ServingError, match=rf"metrics can't be served at 127\.0\.0\.1:{port}: is the port taken"):
        MetricsServer("127.0.0.1", port, {}, bytes).ready()
