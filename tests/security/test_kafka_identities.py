"""Client certificates, passwords and tokens on a real broker: the right ones carry a whole transaction, wrong ones are
told in one line that names the setting.
"""

import time
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaError
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from pipeline.errors import LinewatchError
from pipeline.kafka.clients import admin_client, connection
from pipeline.kafka.tokens import token_source
from pipeline.settings import SecretFile, Settings
from tests.pipeline.brokers import collect, committed_values, events_for, joined, produce
from tests.security.conftest import Doors
from tests.security.pki import Authority

pytestmark = [pytest.mark.servers, pytest.mark.apache]
WAYS = ["mtls", "mtls, encrypted key", "scram-256", "scram-512", "plain", "oauth"]


@pytest.mark.parametrize("way", WAYS)
def test_images_become_events_in_one_transaction(way: str, doors: Doors, prepared: Settings) -> None:
    settings = doors.through(way, prepared)
    produce(settings, *(b"%d" % number for number in range(6)))
    with joined(settings) as session:
        records = collect(session, 6)
        session.commit(events_for(settings, records), records)
    assert sorted(committed_values(settings, settings.topics.events, 6)) == [b"%d" % number for number in range(6)]


def refused(settings: Settings) -> str:
    with pytest.raises(LinewatchError) as caught, admin_client(settings) as admin:
        admin.list_topics()
    told = str(caught.value)
    assert "\n" not in told
    return told


def test_a_certificate_of_another_authority_is_refused(doors: Doors, prepared: Settings, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger", "somebody else")
    cert, key = stranger.issue("plant")
    told = refused(doors.through("mtls", prepared, cert_file=str(cert), key_file=str(key)))
    assert "does not take the certificate of kafka.cert_file" in told


def test_a_certificate_that_has_ended_is_refused(doors: Doors, prepared: Settings) -> None:
    cert, key = doors.authority.issue("ended", ended=True)
    told = refused(doors.through("mtls", prepared, cert_file=str(cert), key_file=str(key)))
    assert "does not take the certificate of kafka.cert_file" in told


def test_no_certificate_is_refused(doors: Doors, prepared: Settings) -> None:
    told = refused(doors.through("mtls", prepared, cert_file=None, key_file=None))
    assert "wants one where none is set" in told


@pytest.mark.parametrize("way", ["mtls", "scram-512", "oauth"])
def test_a_broker_of_another_authority_gets_no_password(
    way: str, doors: Doors, prepared: Settings, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger", "somebody else")
    told = refused(doors.through(way, prepared, ca_file=str(stranger.cert)))
    assert "its certificate is not to be trusted" in told
    assert "kafka.ca_file" in told


def test_a_broker_under_another_name_gets_no_password(doors: Doors, prepared: Settings) -> None:
    settings = doors.through("scram-512", prepared)
    # The same address, spelt so that no certificate is for it.
    other = settings.kafka.bootstrap_servers.replace("127.0.0.1", "127.1")
    told = refused(doors.through("scram-512", prepared, bootstrap_servers=other))
    assert "a name that it is for" in told
    assert "127.1" in told


@pytest.mark.parametrize(
    ("way", "wrong"),
    [("scram-256", {"password": "wrong"}), ("scram-512", {"username": "nobody"}), ("plain", {"password": "wrong"})],
)
def test_a_wrong_user_or_password_is_refused(way: str, wrong: dict[str, str], doors: Doors, prepared: Settings) -> None:
    told = refused(doors.through(way, prepared, **wrong))
    assert "user or password is wrong: check LINEWATCH_KAFKA__USERNAME and LINEWATCH_KAFKA__PASSWORD" in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"oauth_client_secret": "wrong"}, "status 401 invalid_client (check kafka.oauth_client_id"),
        ({"oauth_client_id": "nobody"}, "status 401 invalid_client"),
        ({"oauth_token_url": "http://127.0.0.1:9/token"}, "does not answer"),
        ({"oauth_client_secret": None}, "set LINEWATCH_KAFKA__OAUTH_CLIENT_SECRET"),
    ],
)
def test_no_token_is_told_in_one_line(changes: dict[str, Any], said: str, doors: Doors, prepared: Settings) -> None:
    assert said in refused(doors.through("oauth", prepared, **changes))


@pytest.mark.parametrize("wrong", ["ended", "for others", "signed by others"])
def test_a_token_that_the_broker_does_not_take_is_told(
    wrong: str, doors: Doors, prepared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = doors.through("oauth", prepared)
    token_source(settings.kafka).forget()
    if wrong == "ended":
        monkeypatch.setattr(doors.tokens, "lasts_s", -3600.0)
    elif wrong == "for others":
        monkeypatch.setattr(doors.tokens, "audience", "warehouse")
    else:
        from cryptography.hazmat.primitives.asymmetric import rsa

        monkeypatch.setattr(doors.tokens, "key", rsa.generate_private_key(65537, 2048))
    assert "does not take the token of kafka.oauth_client_id" in refused(settings)
    monkeypatch.undo()
    with admin_client(settings) as admin:
        assert prepared.topics.images in admin.list_topics()


def test_tokens_that_end_are_followed_by_others_under_a_member_that_stays(doors: Doors, prepared: Settings) -> None:
    settings = doors.through("oauth", prepared)
    token_source(settings.kafka).forget()
    doors.tokens.lasts_s, given = 8.0, doors.tokens.given
    try:
        with joined(settings) as session:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                produce(settings, b"one")
                records = collect(session, 1)
                session.commit(events_for(settings, records), records)
    finally:
        doors.tokens.lasts_s = 300.0
        token_source(settings.kafka).forget()
    assert doors.tokens.given >= given + 3


def test_certificate_key_and_password_are_read_at_each_connection_of_one_client(
    doors: Doors, prepared: Settings, tmp_path: Path
) -> None:
    cert, key, password = (tmp_path / name for name in ("cert", "key", "password"))

    def put(files: tuple[Path, Path], word: str) -> None:
        cert.write_bytes(files[0].read_bytes())
        key.write_bytes(files[1].read_bytes())
        password.write_text(word)

    put(doors.authority.issue("rotating", password="first"), "first")
    secret = SecretFile("kafka.key_password_file", str(password))
    kafka = doors.through("mtls", prepared, cert_file=str(cert), key_file=str(key), key_password=secret).kafka
    net = NetworkSelector()
    manager = KafkaConnectionManager(net, **connection(kafka))
    try:
        node = manager.cluster.bootstrap_brokers()[0].node_id

        async def connect() -> None:
            opened = manager.get_connection(node, pop_on_close=True)
            await opened
            opened.close(KafkaError("that is all"))

        net.run(connect)
        put(doors.authority.issue("rotating", password="second", ended=True), "second")
        with pytest.raises(KafkaError):
            net.run(connect)
        manager.reset_backoff(node)
        put(doors.authority.issue("rotating", password="third"), "third")
        net.run(connect)
    finally:
        manager.close()
        net.close()


@pytest.mark.parametrize(
    ("password", "said"),
    [("wrong", "LINEWATCH_KAFKA__KEY_PASSWORD is wrong"), (None, "LINEWATCH_KAFKA__KEY_PASSWORD is wrong")],
)
def test_a_key_that_stays_shut_is_told_and_nobody_is_asked_at_the_terminal(
    password: str | None, said: str, doors: Doors, prepared: Settings
) -> None:
    told = refused(doors.through("mtls, encrypted key", prepared, key_password=password))
    assert said in told
    assert "kafka.key_file" in told
