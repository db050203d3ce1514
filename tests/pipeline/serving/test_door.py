"""Who has a token is answered, who has none is not; health is for everybody; no open door by oversight."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from model import ModelBundle
from pipeline.errors import ServingError, SettingsError
from pipeline.fakes import MemoryStore
from pipeline.serving.door import require_door
from pipeline.serving.rest import build_app
from pipeline.settings import SecretFile, Serving, Settings
from pipeline.stream.inspector import Inspector
from tests.pipeline.tiny import publish, texture

OLD, NEW = "old-token-0123456789", "new-token-0123456789"
SCORE = "/v1/products/bottle/score"
CLOSED = [("POST", SCORE), ("GET", "/metrics/targets"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nowhere")]


@pytest.fixture(scope="module")
def store(tiny_bundle: ModelBundle) -> MemoryStore:
    made = MemoryStore()
    publish(made, tiny_bundle)
    return made


def ask(store: MemoryStore, serving: Serving, method: str, url: str, token: str | None = None) -> httpx.Response:
    values = {"engine": {"device": "cpu", "threads": 1}}
    settings = Settings.from_values(values).model_copy(update={"serving": serving})
    inspector = Inspector(settings, store)
    app = build_app(lambda: inspector, lambda: None)

    async def asked() -> httpx.Response:
        headers = {"authorization": token.encode("latin-1")} if token else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, url, headers=headers, content=texture(1) if method == "POST" else None)

    try:
        return asyncio.run(asked())
    finally:
        inspector.champions.close()


def serving(tokens: str, **changes: object) -> Serving:
    return Serving(tokens=tokens, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "url"), CLOSED)
@pytest.mark.parametrize(
    "token", [None, "Bearer wrong", f"Basic {OLD}", OLD, "Bearer", f"Bearer {OLD}x", "Bearer \xe9"]
)
def test_without_a_good_token_nothing_is_answered(method: str, url: str, token: str | None, store: MemoryStore) -> None:
    response = ask(store, serving(OLD), method, url, token)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"] == "TokenRefused"
    assert OLD not in response.text


@pytest.mark.parametrize("token", [f"Bearer {OLD}", f"bearer {NEW}"])
def test_each_of_several_tokens_is_good(token: str, store: MemoryStore) -> None:
    response = ask(store, serving(f"{OLD}\n{NEW}"), "POST", SCORE, token)
    assert response.status_code == 200
    assert response.json()["product"] == "bottle"


def test_health_is_for_everybody(store: MemoryStore) -> None:
    assert ask(store, serving(OLD), "GET", "/healthz").status_code == 200
    assert ask(store, serving(OLD), "POST", "/healthz/../v1/products/bottle/score").status_code == 401


def test_without_tokens_this_machine_may_ask(store: MemoryStore) -> None:
    assert ask(store, Serving(), "POST", SCORE).status_code == 200


def test_tokens_in_a_file_are_rotated_while_it_serves(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    file = Path("tokens")
    held = Serving(tokens=SecretFile("serving.tokens_file", "tokens"))
    file.write_text(f"{OLD}\n")
    assert ask(store, held, "GET", "/metrics/targets", f"Bearer {OLD}").status_code == 200
    file.write_text(f"{OLD}\n{NEW}\n")
    assert ask(store, held, "GET", "/metrics/targets", f"Bearer {NEW}").status_code == 200
    file.write_text(f"{NEW}\n")
    assert ask(store, held, "GET", "/metrics/targets", f"Bearer {OLD}").status_code == 401
    file.unlink()
    with caplog.at_level(logging.ERROR):
        response = ask(store, held, "GET", "/metrics/targets", f"Bearer {NEW}")
    assert response.status_code == 503, "no file lets nobody in, and not everybody"
    assert "serving.tokens_file: tokens can't be read" in caplog.text
    assert NEW not in caplog.text + response.text


def test_a_replica_that_is_still_starting_lets_nobody_past() -> None:
    def starting() -> Inspector:
        raise ServingError("the replica is still starting")

    app = build_app(starting, lambda: None)

    async def asked(url: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get(url)

    assert asyncio.run(asked("/metrics/targets")).status_code == 503
    assert asyncio.run(asked("/healthz")).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.1", "::", "plant-7.example.com"])
def test_an_address_that_others_reach_needs_tokens(host: str) -> None:
    with pytest.raises(SettingsError, match="is reached from other machines: set LINEWATCH_SERVING__TOKENS") as caught:
        require_door(Serving(host=host))
    assert "\n" not in str(caught.value)
    require_door(Serving(host=host, allow_anonymous=True))
    require_door(serving(OLD, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    require_door(Serving(host=host))


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least 16 characters") as caught:
        require_door(serving(f"{OLD} tooshort"))
    assert "tooshort" not in str(caught.value)
