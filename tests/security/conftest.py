"""A plant with doors: a broker with client certificates, passwords, tokens and ACLs; an authority; a token server."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from infra.local.apache_kafka import find_apache
from infra.local.seaweedfs import find_seaweedfs
from infra.local.server import Server
from pipeline.kafka.clients import admin_client
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import S3, Settings
from tests.pipeline.alone import ACCESS, SECRET, alone
from tests.pipeline.environment import clean_environment, no_settings_in_the_environment
from tests.security.pki import Authority
from tests.security.secured_kafka import PLAIN_PASSWORD, SecuredKafka, set_password
from tests.security.secured_seaweedfs import SecuredSeaweedFS
from tests.security.token_server import TokenServer

__all__ = ["clean_environment"]
_numbers = itertools.count(1)
ALL = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)


@dataclass(frozen=True)
class Doors:
    broker: Server
    authority: Authority
    tokens: TokenServer
    folder: Path

    def at(self, port: str) -> str:
        return f"{self.broker.program.host}:{self.broker.program.ports[port]}"

    def settings(self, kafka: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Settings:
        """By the tests' own way in, unless ``kafka`` says another; topics and a group of its own at each call."""
        name = f"s{next(_numbers)}"
        first = {"bootstrap_servers": self.broker.endpoint, "group": name, "delivery": "exactly_once"}
        topics = {"prefix": name, "partitions": 2}
        ours = {"kafka": first | (kafka or {}), "topics": topics, **sections}
        with no_settings_in_the_environment():
            return Settings(**ours)  # type: ignore[arg-type]

    def through(self, way: str, settings: Settings, **changes: Any) -> Settings:
        """The same settings by another way in, as the account "plant"."""
        kafka = settings.kafka.model_dump() | self.ways[way] | changes
        return settings.model_copy(update={"kafka": type(settings.kafka)(**kafka)})

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        ca = {"ca_file": str(self.authority.cert)}
        cert, key = (self.folder / f"plant.{ending}" for ending in ("pem", "key"))
        shut = self.folder / "shut" / "plant.key"
        mtls = ca | {"security_protocol": "SSL", "bootstrap_servers": self.at("mtls"), "cert_file": str(cert)}
        sasl = ca | {"security_protocol": "SASL_SSL", "username": "plant"}
        scram = sasl | {"bootstrap_servers": self.at("scram"), "password": "right"}
        return {
            "mtls": mtls | {"key_file": str(key)},
            "mtls, encrypted key": mtls
            | {"cert_file": str(shut.with_suffix(".pem")), "key_file": str(shut), "key_password": "sesame"},
            "scram-256": scram | {"sasl_mechanism": "SCRAM-SHA-256"},
            "scram-512": scram | {"sasl_mechanism": "SCRAM-SHA-512"},
            "plain": scram | {"sasl_mechanism": "PLAIN", "password": PLAIN_PASSWORD},
            "oauth": ca
            | {
                "security_protocol": "SASL_SSL",
                "bootstrap_servers": self.at("oauth"),
                "sasl_mechanism": "OAUTHBEARER",
                "oauth_token_url": f"{self.tokens.url}/token",
                "oauth_client_id": "plant",
                "oauth_client_secret": "right",
                "oauth_scope": "plant",
            },
        }


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doors")


@pytest.fixture(scope="session")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="session")
def tokens() -> Iterator[TokenServer]:
    with TokenServer({"plant": "right"}).running() as running:
        yield running


@pytest.fixture(scope="session")
def doors(folder: Path, authority: Authority, tokens: TokenServer) -> Iterator[Doors]:
    kind = type("Secured", (SecuredKafka,), {"authority": authority, "tokens": tokens})
    with alone(kind, find_apache, folder / "kafka", folder / "kafka.log") as broker:
        found = Doors(broker, authority, tokens, folder)
        authority.issue("plant")
        _shut_key(authority, folder / "shut")
        own = found.settings()
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            set_password(own, "plant", "right", mechanism=mechanism)
        for account in ("plant", "plant-shut"):
            allow(own, account, *((what, "*", ACLOperation.ALL) for what in ALL))
        yield found


@pytest.fixture(scope="session")
def store(folder: Path, authority: Authority, tokens: TokenServer) -> Iterator[Server]:
    kind = type("Secured", (SecuredSeaweedFS,), {"authority": authority, "tokens": tokens})
    with alone(kind, find_seaweedfs, folder / "s3", folder / "s3.log") as server:
        yield server


def s3(store: Server, authority: Authority, **changes: Any) -> S3:
    """By TLS, as whoever may do all; a bucket of its own at each call."""
    facts = {"endpoint": https(store), "ca_file": str(authority.cert), "bucket": f"plant-{next(_numbers)}"}
    return S3(**{**facts, "access_key": ACCESS, "secret_key": SECRET, "timeout_s": 30.0, **changes})


def https(store: Server) -> str:
    return f"https://{store.program.host}:{store.program.ports['https']}"


def _shut_key(authority: Authority, folder: Path) -> None:
    """The same name, with a key that is encrypted."""
    folder.mkdir()
    cert, key = authority.issue("plant-shut", password="sesame")
    cert.rename(folder / "plant.pem")
    key.rename(folder / "plant.key")


def allow(settings: Settings, who: str, *rights: tuple[ResourceType, str, ACLOperation]) -> None:
    """settings: of somebody who may give rights. A name with `*` behind it is for all that begin so."""
    with admin_client(settings) as admin:
        admin.create_acls(
            [
                ACL(f"User:{who}", "*", operation, ACLPermissionType.ALLOW, _pattern(kind, name))
                for kind, name, operation in rights
            ]
        )


def _pattern(kind: ResourceType, name: str) -> ResourcePattern:
    if name.endswith("*") and len(name) > 1:
        return ResourcePattern(kind, name[:-1], ACLResourcePatternType.PREFIXED)
    return ResourcePattern(kind, name)


@pytest.fixture
def prepared(doors: Doors) -> Settings:
    """With topics that are there, by the tests' own way in."""
    settings = doors.settings()
    ensure_topics(settings)
    return settings
