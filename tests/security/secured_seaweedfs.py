"""SeaweedFS as a plant has it: TLS by an authority of its own, accounts that may do less than all, temporary keys."""

import base64
import json
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from infra.local.program import Say
from infra.local.seaweedfs import SeaweedFS
from infra.local.server import Server
from tests.pipeline.alone import ACCESS, SECRET
from tests.security.pki import Authority
from tests.security.token_server import AUDIENCE, TokenServer

IDENTITIES = "identities.json"
ROLE_ARN, PROVIDER = "arn:aws:iam::role/line", "idp"
EVERYTHING = ["Admin", "Read", "Write", "List", "Tagging"]
Account = tuple[str, str, list[str]]
"""Access key, secret key, and what it may do."""


class SecuredSeaweedFS(SeaweedFS):
    """The port "main" is the tests' own way in, without TLS."""

    port_names: ClassVar[tuple[str, ...]] = (*SeaweedFS.port_names, "https")
    authority: ClassVar[Authority]
    tokens: ClassVar[TokenServer]

    def prepare(self, say: Say) -> None:
        super().prepare(say)
        cert, key = self.authority.issue("store")
        for name, file in (("store.pem", cert), ("store.key", key)):
            (self.folder / name).write_bytes(file.read_bytes())
        (self.folder / "iam.json").write_text(json.dumps(roles(self.tokens)))
        if not (self.folder / IDENTITIES).exists():
            write_accounts(self.folder)

    def command(self) -> list[str]:
        more = [f"-s3.port.https={self.ports['https']}", "-s3.cert.file=store.pem", "-s3.key.file=store.key"]
        return [*super().command(), *more, f"-s3.config={IDENTITIES}", "-s3.iam.config=iam.json"]


def roles(tokens: TokenServer) -> dict[str, Any]:
    """A role that may do all in S3, for whoever has a token of the token server."""
    everything = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}
    trusted = {"Effect": "Allow", "Principal": {"Federated": PROVIDER}, "Action": ["sts:AssumeRoleWithWebIdentity"]}
    version = {"Version": "2012-10-17"}
    trust = {**version, "Statement": [trusted]}
    sts = {"issuer": "sts", "signingKey": base64.b64encode(bytes(32)).decode(), "tokenDuration": "1h"}
    idp = {"issuer": tokens.url, "clientId": AUDIENCE, "jwksUri": f"{tokens.url}/jwks"}
    return {
        "sts": sts | {"maxSessionLength": "12h"},
        "providers": [{"name": PROVIDER, "type": "oidc", "enabled": True, "config": idp}],
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [{"name": "everything", "document": {**version, "Statement": [everything]}}],
        "roles": [{"roleName": "line", "roleArn": ROLE_ARN, "attachedPolicies": ["everything"], "trustPolicy": trust}],
    }


def write_accounts(folder: Path, **accounts: Account) -> None:
    """Besides the tests' own, which may do all."""
    everyone = {"tests": (ACCESS, SECRET, EVERYTHING), **accounts}
    identities = [
        {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}
        for name, (access, secret, actions) in everyone.items()
    ]
    (folder / IDENTITIES).write_text(json.dumps({"identities": identities}))


def set_accounts(store: Server, **accounts: Account) -> None:
    """Those that count from now on."""
    write_accounts(store.program.folder, **accounts)
    assert store.pid
    os.kill(store.pid, signal.SIGHUP)


def revoked(account: Account) -> Account:
    """An account that is gone from its file SeaweedFS keeps until it starts anew; one with another secret is shut."""
    return account[0], "nobody-knows-this-secret", []
