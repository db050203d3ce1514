"""Tokens: kept until shortly before their end, asked for with the credentials of that moment, and over TLS."""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import BrokerRefused, BrokerUnavailable
from pipeline.kafka import tokens
from pipeline.kafka.tokens import ClientCredentials
from pipeline.settings import Kafka, SecretFile
from tests.security.pki import Authority
from tests.security.token_server import TokenServer


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer({"plant": "right&proper=%", "other": "x"}).running() as running:
        yield running


def kafka(server: TokenServer, **changes: object) -> Kafka:
    facts = {"oauth_token_url": f"{server.url}/token", "oauth_client_id": "plant", "oauth_scope": "images events"}
    return Kafka(**{**facts, "oauth_client_secret": "right&proper=%", **changes})  # type: ignore[arg-type]


def test_a_token_is_kept_until_shortly_before_its_end(server: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now)
    source = ClientCredentials(kafka(server))
    first = source.token()
    assert server.asked == [{"grant_type": ["client_credentials"], "scope": ["images events"]}]
    now += server.lasts_s - 31
    assert source.token() == first
    now += 2
    assert source.token()
    assert server.given == 2
    source.forget()
    assert source.token()
    assert server.given == 3


def test_a_short_token_is_kept_for_most_of_its_life(server: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now)
    server.lasts_s = 10.0
    source = ClientCredentials(kafka(server))
    for passed_s, given in ((0, 1), (7.9, 1), (0.2, 2)):
        now += passed_s
        source.token()
        assert server.given == given


def test_a_client_secret_in_a_file_is_read_at_each_request(server: TokenServer, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("wrong")
    source = ClientCredentials(
        kafka(server, oauth_client_secret=SecretFile("kafka.oauth_client_secret_file", str(file)))
    )
    with pytest.raises(BrokerRefused, match=r"status 401 invalid_client \(check kafka\.oauth_client_id"):
        source.token()
    file.write_text("right&proper=%\n")
    assert source.token()


def test_what_is_no_token_server_is_told(server: TokenServer) -> None:
    with pytest.raises(BrokerRefused, match="status 400 invalid_request"):
        ClientCredentials(kafka(server, oauth_token_url=f"{server.url}/elsewhere")).token()
    with pytest.raises(BrokerUnavailable, match=r"does not answer.*is kafka\.oauth_token_url right"):
        ClientCredentials(kafka(server, oauth_token_url="http://127.0.0.1:9/token")).token()


def test_over_tls_the_server_must_be_of_the_named_authority(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs", "somebody else")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("idp"))
    with TokenServer({"plant": "right&proper=%"}, context).running() as secure:
        assert secure.url.startswith("https://")
        assert ClientCredentials(kafka(secure, oauth_ca_file=str(authority.cert))).token()
        for untrusted in (None, str(stranger.cert)):
            with pytest.raises(BrokerUnavailable, match=r"CERTIFICATE_VERIFY_FAILED.*oauth_ca_file its authority"):
                ClientCredentials(kafka(secure, oauth_ca_file=untrusted)).token()
        assert secure.given == 1


def test_no_secret_and_no_token_is_in_what_is_raised_or_shown(server: TokenServer) -> None:
    source = ClientCredentials(kafka(server, oauth_client_id="nobody"))
    with pytest.raises(BrokerRefused) as caught:
        source.token()
    assert "right" not in str(caught.value)
    good = ClientCredentials(kafka(server))
    token = good.token()
    assert token not in repr(good)
    assert "right" not in repr(vars(good)["_kafka"])
