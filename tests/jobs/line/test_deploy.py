"""A configuration is sent again where Ray did not come to start Serve, and not where it is refused."""

import time
from typing import Any

import pytest

from jobs.line import deploy
from pipeline.errors import ServingError

BUSY = "Traceback ...\nThe actor never ran - it was cancelled before it started running."


class Client:
    def __init__(self, *answers: str) -> None:
        self.answers, self.sent = list(answers), list[dict[str, Any]]()

    def deploy_applications(self, config: dict[str, Any]) -> None:
        self.sent.append(config)
        if self.answers:
            raise RuntimeError(self.answers.pop(0))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "AGAIN_S", 0.0)


def test_a_busy_machine_is_asked_again() -> None:
    client, said = Client(BUSY, BUSY), list[str]()
    deploy._send(client, {"applications": []}, time.monotonic() + 60, said.append)
    assert client.sent == [{"applications": []}] * 3
    assert said == ["Ray Serve did not start in time; trying again"] * 2


def test_a_refusal_is_told_at_once_and_a_busy_machine_in_the_end() -> None:
    client = Client("Traceback ...\nthe port is taken")
    with pytest.raises(ServingError, match="did not take the configuration: the port is taken"):
        deploy._send(client, {}, time.monotonic() + 60, print)
    assert len(client.sent) == 1
    with pytest.raises(ServingError, match="never ran"):
        deploy._send(Client(BUSY), {}, time.monotonic() - 1, print)
