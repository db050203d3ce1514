from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from infra.local.credentials import Credentials
from infra.local.errors import LocalServersError, NotReady
from infra.local.program import Program, Role
from infra.local.server import Server

SCRIPTS = {
    "ends": "echo loading; echo 'no space left on device'; exit 3",
    "never answers": "echo waiting for godot; sleep 60",
    "works": "sleep 60",
}


class Script(Program):
    """A server that is a line of shell."""

    kind: ClassVar[str] = "script"
    role: ClassVar[Role] = "s3"
    title: ClassVar[str] = "Script"
    package: ClassVar[str] = "script"
    ready_within_s: ClassVar[float] = 1.0

    def command(self) -> list[str]:
        return ["sh", "-c", SCRIPTS[self.binary]]

    def environment(self) -> dict[str, str]:
        return {}

    def probe(self) -> None:
        if self.binary != "works":
            raise ConnectionError("nobody listens")


@pytest.fixture
def server(tmp_path: Path) -> Callable[[str], Server]:
    def make(script: str) -> Server:
        program = Script(script, "1", "a test", tmp_path / "s3", ({"main": 1},), Credentials("a", "b"))
        return Server(program, log=tmp_path / "script.log", detach=False, say=lambda _: None)

    return make


def test_a_server_that_ends_is_told_with_its_last_words(server: Callable[[str], Server]) -> None:
    failing = server("ends")
    with pytest.raises(NotReady) as caught:
        failing.start()
    assert str(failing.log) in str(caught.value)
    assert not failing.alive


def test_a_server_that_does_not_answer_is_ended_and_told(server: Callable[[str], Server]) -> None:
    failing = server("never answers")
    with pytest.raises(NotReady, match="did not answer within 1 s") as caught:
        failing.start()
    assert "ConnectionError: nobody listens" in str(caught.value)
    assert "waiting for godot" in str(caught.value)
    assert str(failing.log) in str(caught.value)
    assert failing.pid is None


def test_a_running_server_is_not_started_twice(server: Callable[[str], Server]) -> None:
    running = server("works")
    running.start()
    try:
        with pytest.raises(LocalServersError, match="runs already"):
            running.start()
        before = running.pid
        running.restart()
        assert running.alive
        assert running.pid != before
    finally:
        running.stop()
    running.stop()
    running.kill()
    assert running.pid is None
