"""Programs that stand in for Apache Kafka and SeaweedFS where only processes, ports and records count: no Java."""

from __future__ import annotations

from infra.local.apache_kafka import ApacheKafka
from infra.local.program import Program
from infra.local.seaweedfs import SeaweedFS

SLEEPERS: tuple[type[Program], ...] = (ApacheKafka, SeaweedFS)
# What a sleeper does instead of being a server.
AS_SLEEPER = {
    "prepare": lambda *_: None,
    "command": lambda _: ["/bin/sleep", "100"],
    "environment": lambda _: {},
    "probe": lambda _: None,
}


def sleep_instead() -> None:
    """In a process of its own; tests in this one patch with `AS_SLEEPER`, and so get the servers back."""
    for program in SLEEPERS:
        for name, does in AS_SLEEPER.items():
            setattr(program, name, does)
