"""How clients show who they are and see whom they talk to: TLS, client certificates, passwords, tokens.

What rotates is read anew: certificates at each connection by the client itself, passwords at each authentication.
"""

import ssl
from typing import Any

from kafka.net.sasl import SaslMechanismPlain, SaslMechanismScram, register_sasl_mechanism
from pydantic import SecretStr

from pipeline.errors import SettingsError
from pipeline.kafka.tokens import require_oauth, token_source
from pipeline.settings import Kafka

PASSWORDS = ("sasl_plain_username", "sasl_plain_password")


def security(kafka: Kafka) -> dict[str, Any]:
    """Options of kafka-python's clients; no secret is in them as text.

    Raises:
        SettingsError: something is missing, or can't be read.
        BrokerUnavailable: no token is to be had.
    """
    options: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if "SSL" in kafka.security_protocol:
        options |= _tls(kafka)
    if kafka.security_protocol.startswith("SASL"):
        options |= _sasl(kafka)
    return options


def _tls(kafka: Kafka) -> dict[str, Any]:
    """Tried here: the client would take a file that it can't read for a broker that does not answer."""
    options: dict[str, Any] = {}
    try:
        context = ssl.create_default_context(cafile=kafka.ca_file)
    except ssl.SSLError:
        raise SettingsError(f"kafka.ca_file {kafka.ca_file} is not a PEM file of certificates") from None
    except OSError as error:
        raise SettingsError(f"kafka.ca_file {kafka.ca_file} can't be read: {error.strerror}") from None
    if kafka.ca_file:
        options["ssl_cafile"] = kafka.ca_file
    if kafka.cert_file:
        # OpenSSL would ask the terminal for the password of a key that is encrypted, were there no function to ask.
        password = kafka.key_password.get_secret_value if kafka.key_password else str
        files = f"kafka.cert_file {kafka.cert_file}" + (
            f" and kafka.key_file {kafka.key_file}" if kafka.key_file else ""
        )
        try:
            context.load_cert_chain(kafka.cert_file, kafka.key_file, password)
        except ssl.SSLError as error:
            raise SettingsError(
                f"{files}: no PEM certificate with its key, or LINEWATCH_KAFKA__KEY_PASSWORD is wrong "
                f"({error.reason or 'not PEM'})"
            ) from None
        except OSError as error:
            raise SettingsError(f"{files} can't be read: {error.strerror}") from None
        options |= {"ssl_certfile": kafka.cert_file, "ssl_keyfile": kafka.key_file, "ssl_password": password}
    return options


def _sasl(kafka: Kafka) -> dict[str, Any]:
    if kafka.sasl_mechanism == "OAUTHBEARER":
        require_oauth(kafka)
        tokens = token_source(kafka)
        tokens.token()  # where none is to be had, here it is told at once
        return {"sasl_mechanism": kafka.sasl_mechanism, "sasl_oauth_token_provider": tokens}
    if not (kafka.sasl_mechanism and kafka.username and kafka.password):
        raise SettingsError(
            "kafka.security_protocol asks for SASL: set kafka.sasl_mechanism, LINEWATCH_KAFKA__USERNAME "
            "and LINEWATCH_KAFKA__PASSWORD"
        )
    read_passwords_anew()
    account = dict(zip(PASSWORDS, (kafka.username, kafka.password), strict=True))
    return {"sasl_mechanism": kafka.sasl_mechanism, **account}


def read_passwords_anew() -> None:
    """Let kafka-python take a `SecretStr` for name and password, and ask it for its value at each authentication."""
    for name, mechanism in (("PLAIN", _Plain), ("SCRAM-SHA-256", _Scram), ("SCRAM-SHA-512", _Scram)):
        register_sasl_mechanism(name, mechanism, overwrite=True)


class _Plain(SaslMechanismPlain):
    def __init__(self, **config: Any) -> None:
        super().__init__(**_opened(config))


class _Scram(SaslMechanismScram):
    def __init__(self, **config: Any) -> None:
        super().__init__(**_opened(config))


def _opened(config: dict[str, Any]) -> dict[str, Any]:
    secret = {name: config[name] for name in PASSWORDS if isinstance(config.get(name), SecretStr)}
    return {**config, **{name: value.get_secret_value() for name, value in secret.items()}}
