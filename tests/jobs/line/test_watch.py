"""A terminal says that a line stands still, once, and that it goes on."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs.line import watch as watching
from jobs.line.watch import changes, standing, watch

SINCE = "2026-01-31T13:30:00Z"
WELL = {"healthy": True, "reason": None, "waiting": None, "stalled": None, "stalls": []}


def stalled(*partitions: int | None) -> dict:
    stalls = [{"reason": "no right", "since": SINCE, "partition": one} for one in partitions]
    return {**WELL, "stalled": stalls[0], "stalls": stalls}


def test_each_stall_is_said_once_and_its_end_too() -> None:
    said: list[str] = []
    told: dict[str, str] = {}
    for health in (WELL, stalled(3), stalled(3), stalled(3, None), WELL, WELL):
        told = changes(told, standing(health), said.append)
    assert said[:2] == [
        f"! partition 3 has been standing still since {SINCE}: no right",
        f"! the line has been standing still since {SINCE}: no right",
    ]
    assert sorted(said[2:]) == ["partition 3 goes on", "the line goes on"]


def test_replicas_that_are_ill_or_silent_are_said_too() -> None:
    said: list[str] = []
    told = changes({}, standing({**WELL, "healthy": False, "reason": "no heartbeat"}), said.append)
    told = changes(told, standing(None), said.append)
    changes(told, standing(WELL), said.append)
    assert said == [
        "! a replica is not healthy: no heartbeat",
        "! no replica answers: Serve starts another, and Ray's dashboard shows why",
        "the replicas are well again",
        "the replicas are well again",
    ]


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    answers: list[tuple[int, bytes]] = []

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_asks_the_replicas_until_it_is_told_to_stop(
    endpoint: tuple[str, list[tuple[int, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ASK_EACH_S", 0.01)
    address, answers = endpoint
    ill = {**WELL, "healthy": False, "reason": "no heartbeat"}
    answers += [(200, json.dumps(stalled(None)).encode()), (503, json.dumps(ill).encode()), (500, b"oops"),
                (200, json.dumps(WELL).encode())]  # fmt: skip
    said: list[str] = []
    stop = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 6:
            stop.set()

    watch(address, say, stop)
    assert said[0].startswith("! the line has been standing still")
    assert said[1:] == [
        "! a replica is not healthy: no heartbeat",
        "the line goes on",
        "! no replica answers: Serve starts another, and Ray's dashboard shows why",
        "the replicas are well again",
        "the replicas are well again",
    ]
