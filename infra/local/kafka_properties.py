"""Apache Kafka's `server.properties`: what the embedded brokers change from the defaults, and why."""

from __future__ import annotations

from collections.abc import Sequence

from infra.local.ports import LOOPBACK
from infra.local.program import Ports

SIZES = {
    # Images travel in messages. Everything that a message passes through must let it pass.
    "message.max.bytes": "16777216",
    "replica.fetch.max.bytes": "16777216",
    # A week or a gigabyte per partition, in segments small enough for that to bite.
    "log.retention.hours": "168",
    "log.retention.bytes": "1073741824",
    "log.segment.bytes": "134217728",
    "num.network.threads": "2",
    "num.io.threads": "4",
    # The default of 128 MB does not go with a heap of 400.
    "log.cleaner.dedupe.buffer.size": "16777216",
}
TIMES = {
    # Groups form at once, and tests may ask for sessions of a second.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After a kill -9 the controller holds the broker's place until this has passed, 9 s by default: what it led has
    # no leader so long.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # A copy that is alive and behind holds up writers for so long, 30 s by default.
    "replica.lag.time.max.ms": "5000",
    # A broker that is back leads again after seconds and not minutes: the next kill should hit a leader too.
    "leader.imbalance.check.interval.seconds": "5",
    "leader.imbalance.per.broker.percentage": "0",
}


def server_properties(number: int, cluster: Sequence[Ports], majority: int, host: str = LOOPBACK) -> str:
    """Of the broker `number` (from 1) of `cluster`; each broker is a controller and a voter too."""
    ports = cluster[number - 1]
    voters = [f"{node}@{host}:{its['controller']}" for node, its in enumerate(cluster, start=1)]
    lines = {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": ",".join(voters),
        "listeners": f"PLAINTEXT://{host}:{ports['main']},CONTROLLER://{host}:{ports['controller']}",
        "advertised.listeners": f"PLAINTEXT://{host}:{ports['main']}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        # Relative to the working folder: a properties file cannot hold every path (commas, accents).
        "log.dirs": "log",
        "auto.create.topics.enable": "false",
        **_copies(len(cluster), majority),
        **SIZES,
        **TIMES,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _copies(brokers: int, majority: int) -> dict[str, str]:
    """What Kafka keeps for itself: a copy on each broker, and few partitions (50 by default)."""
    every, most = str(brokers), str(majority)
    return {
        "offsets.topic.replication.factor": every,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": every,
        "transaction.state.log.min.isr": most,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": every,
        "share.coordinator.state.topic.min.isr": most,
        "share.coordinator.state.topic.num.partitions": "1",
        # The offsets topic has no setting of its own for this.
        "min.insync.replicas": most,
        # The default, spelt out: what was acknowledged outranks being there.
        "unclean.leader.election.enable": "false",
    }
