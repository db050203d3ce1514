"""OAUTHBEARER: tokens for a client's credentials, had from a token server (RFC 6749, section 4.4) and kept until
shortly before their end."""

import json
import time
from functools import cache
from threading import Lock
from typing import Any

import certifi
import urllib3
from kafka.net.sasl.oauth import AbstractTokenProvider

from pipeline.errors import BrokerRefused, BrokerUnavailable, SettingsError
from pipeline.settings import Kafka

CONNECT_S, READ_S = 3.0, 5.0
"""The client asks for a token within its own loop, which does nothing else meanwhile."""
LEFT_S, LEFT_SHARE = 30.0, 0.2
"""A token is as good as over where so many seconds, or this share of its life where that is less, are left."""
SHOWN_CHARACTERS = 120


class ClientCredentials(AbstractTokenProvider):
    """Shared by the clients of a process; asked from any thread."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__()
        assert kafka.oauth_token_url
        self._kafka, self._url = kafka, kafka.oauth_token_url
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=kafka.oauth_ca_file or certifi.where(),
        )
        self._lock = Lock()
        self._token, self._good_until = "", 0.0

    def token(self) -> str:
        """One that lasts for a while.

        Raises:
            BrokerRefused: the token server gives none to these credentials.
            BrokerUnavailable: it does not answer.
        """
        with self._lock:
            if time.monotonic() >= self._good_until:
                asked_at = time.monotonic()
                self._token, lasts_s = self._ask()
                self._good_until = asked_at + lasts_s - min(LEFT_S, LEFT_SHARE * lasts_s)
            return self._token

    def forget(self) -> None:
        """The broker has refused it: the next one is new."""
        with self._lock:
            self._good_until = 0.0

    def _ask(self) -> tuple[str, float]:
        """A token, and seconds until its end; 0 where the server does not say."""
        kafka = self._kafka
        assert kafka.oauth_client_id
        assert kafka.oauth_client_secret
        form = {"grant_type": "client_credentials", **({"scope": kafka.oauth_scope} if kafka.oauth_scope else {})}
        account = (
            f"{_form_encoded(kafka.oauth_client_id)}:{_form_encoded(kafka.oauth_client_secret.get_secret_value())}"
        )
        headers = urllib3.make_headers(basic_auth=account)
        try:
            answer = self._http.request("POST", self._url, fields=form, headers=headers, encode_multipart=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise BrokerUnavailable(
                f"the token server at {self._url} does not answer ({str(reason)[:SHOWN_CHARACTERS]}): is "
                "kafka.oauth_token_url right, and kafka.oauth_ca_file its authority?"
            ) from None
        said = _json(answer.data)
        if answer.status != 200:
            raise BrokerRefused(
                f"the token server at {self._url} refuses: status {answer.status} "
                f"{str(said.get('error', ''))[:SHOWN_CHARACTERS]} (check kafka.oauth_client_id, kafka.oauth_scope and "
                "LINEWATCH_KAFKA__OAUTH_CLIENT_SECRET)"
            )
        if not isinstance(said.get("access_token"), str):
            raise BrokerRefused(f"what answers at kafka.oauth_token_url {self._url} is no token server")
        lasts = said.get("expires_in")
        return said["access_token"], float(lasts) if isinstance(lasts, int | float) and lasts > 0 else 0.0


@cache
def token_source(kafka: Kafka) -> ClientCredentials:
    """One for all clients with these settings."""
    return ClientCredentials(kafka)


def require_oauth(kafka: Kafka) -> None:
    """Raises SettingsError where something is missing that a token is asked for with."""
    needed = {
        "kafka.oauth_token_url": kafka.oauth_token_url,
        "kafka.oauth_client_id": kafka.oauth_client_id,
        "LINEWATCH_KAFKA__OAUTH_CLIENT_SECRET": kafka.oauth_client_secret,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise SettingsError(f"kafka.sasl_mechanism is OAUTHBEARER: set {', '.join(missing)}")


def _form_encoded(text: str) -> str:
    from urllib.parse import quote_plus

    return quote_plus(text)


def _json(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
