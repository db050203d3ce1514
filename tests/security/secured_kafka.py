"""Apache Kafka as a plant has it: ports for client certificates, for passwords and for tokens, and ACLs."""

from typing import ClassVar

from infra.local.apache_kafka import ApacheKafka
from infra.local.program import Say
from pipeline.kafka.clients import admin_client
from pipeline.settings import Settings
from tests.security.pki import Authority
from tests.security.token_server import AUDIENCE, TokenServer

PORTS = {"mtls": "SSL", "scram": "SASL_SSL", "oauth": "SASL_SSL"}
PLAIN_PASSWORD = "plain-" + "password"
REAUTH_MS = 6000
"""A password that is no longer right is of no use after so long, on connections that are open too."""
HANDLER = "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"
LOGIN = "org.apache.kafka.common.security"


class SecuredKafka(ApacheKafka):
    """The port "main" is the tests' own way in: whoever comes that way may do all."""

    port_names: ClassVar[tuple[str, ...]] = ("main", "controller", *PORTS)
    authority: ClassVar[Authority]
    tokens: ClassVar[TokenServer]

    def prepare(self, say: Say) -> None:
        super().prepare(say)
        cert, key = self.authority.issue("broker")
        (self.folder / "broker.pem").write_bytes(key.read_bytes() + cert.read_bytes())
        (self.folder / "ca.pem").write_bytes(self.authority.cert.read_bytes())
        file = self.folder / "server.properties"
        lines = dict(line.split("=", 1) for line in file.read_text(encoding="ascii").splitlines())
        more = ",".join(f"{name.upper()}://{self.host}:{self.ports[name]}" for name in PORTS)
        for name in ("listeners", "advertised.listeners"):
            lines[name] += f",{more}"
        protocols = ",".join(f"{name.upper()}:{protocol}" for name, protocol in PORTS.items())
        lines["listener.security.protocol.map"] += f",{protocols}"
        lines |= self._security()
        file.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="ascii")

    def command(self) -> list[str]:
        java, *rest = super().command()
        return [java, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.tokens.url}/jwks", *rest]

    def _security(self) -> dict[str, str]:
        scram, oauth = "listener.name.scram", "listener.name.oauth"
        return {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": "broker.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": "ca.pem",
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            f"{scram}.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
            f"{scram}.scram-sha-256.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
            f"{scram}.scram-sha-512.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
            f"{scram}.scram-sha-512.connections.max.reauth.ms": str(REAUTH_MS),
            f"{scram}.plain.sasl.jaas.config": (
                f'{LOGIN}.plain.PlainLoginModule required user_plant="{PLAIN_PASSWORD}";'
            ),
            f"{oauth}.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{oauth}.oauthbearer.sasl.jaas.config": f"{LOGIN}.oauthbearer.OAuthBearerLoginModule required;",
            f"{oauth}.oauthbearer.sasl.server.callback.handler.class": HANDLER,
            f"{oauth}.oauthbearer.connections.max.reauth.ms": str(REAUTH_MS),
            "sasl.oauthbearer.jwks.endpoint.url": f"{self.tokens.url}/jwks",
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            "sasl.oauthbearer.expected.issuer": self.tokens.url,
        }


def set_password(settings: Settings, user: str, password: str, *, mechanism: str = "SCRAM-SHA-512") -> None:
    """Of an account, which is made where there is none. settings: of the port "main"."""
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

    kind = ScramMechanism[mechanism.replace("-", "_")]
    with admin_client(settings) as admin:
        admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, kind, password)])
