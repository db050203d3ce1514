"""Apache Kafka itself, one broker that is its own controller (KRaft)."""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from typing import ClassVar

from infra.local.errors import NotReady
from infra.local.kafka_jars import KAFKA_VERSION, ensure_jars, find_java, have_jars, jars_dir
from infra.local.ports import LOOPBACK
from infra.local.program import Found, Missing, Program, Role, Say
from infra.local.readiness import probe_kafka

OLDEST_JAVA = 17
FORMAT_WITHIN_S = 120
HOW_TO_GET = "Install Java 17 or newer and Maven (Debian: `apt-get install openjdk-17-jre-headless maven`)."
JVM_OPTIONS = (
    "-Xmx400m",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    # Otherwise the JVM leaves a file in /tmp behind whenever it is killed.
    "-XX:-UsePerfData",
    "-Dlog4j2.configurationFile=log4j2.properties",
)

LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


def find_apache() -> Found | Missing:
    """Java 17 or newer, and either the jars or the Maven to fetch them."""
    java, version = find_java()
    if java is None:
        return Missing("no java found", HOW_TO_GET)
    if version < OLDEST_JAVA:
        return Missing(f"java {version} is older than {OLDEST_JAVA}", HOW_TO_GET)
    if shutil.which("mvn"):
        return Found(java, KAFKA_VERSION, f"java {version} and mvn found")
    if have_jars():
        return Found(java, KAFKA_VERSION, f"java {version} found, jars in cache")
    return Missing(f"java {version} found, but no mvn", HOW_TO_GET)


class ApacheKafka(Program):
    kind: ClassVar[str] = "apache"
    role: ClassVar[Role] = "kafka"
    title: ClassVar[str] = "Apache Kafka"
    package: ClassVar[str] = "apache-kafka"
    port_names: ClassVar[tuple[str, ...]] = ("main", "controller")

    def prepare(self, say: Say) -> None:
        ensure_jars(say)
        # Written anew each time: ports may have changed, and they are stored nowhere else.
        (self.folder / "server.properties").write_text(self._properties(), encoding="ascii")
        (self.folder / "log4j2.properties").write_text(LOG4J, encoding="ascii")
        if not (self.folder / "log" / "meta.properties").exists():
            self._format()

    def command(self) -> list[str]:
        return [self.binary, *JVM_OPTIONS, "-cp", f"{jars_dir()}/*", "kafka.Kafka", "server.properties"]

    def environment(self) -> dict[str, str]:
        return {}

    def probe(self) -> None:
        probe_kafka(self.endpoint)

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        # The classes are used once: compiling them well would take longer than running them.
        tool = [self.binary, *JVM_OPTIONS, "-XX:TieredStopAtLevel=1", "-cp", f"{jars_dir()}/*"]
        # `--cluster-id=` with the value attached: a random id may start with "-".
        done = subprocess.run(
            [*tool, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", "server.properties", "-g"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FORMAT_WITHIN_S,
            check=False,
        )
        if done.returncode != 0:
            raise NotReady(
                f"Apache Kafka's data folder {self.folder} could not be formatted:\n"
                f"{(done.stdout + done.stderr).strip()[-2000:]}\n"
                "Start afresh with `linewatch local reset` (this deletes the folder's data)."
            )

    def _properties(self) -> str:
        main, controller = self.ports["main"], self.ports["controller"]
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
            "listeners": f"PLAINTEXT://{LOOPBACK}:{main},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{main}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            # Relative to the working folder: a properties file cannot hold every path (commas, accents).
            "log.dirs": "log",
            "auto.create.topics.enable": "false",
            # Images travel in messages. Everything that a message passes through must let it pass.
            "message.max.bytes": "16777216",
            "replica.fetch.max.bytes": "16777216",
            # A week or a gigabyte per partition, in segments small enough for that to bite.
            "log.retention.hours": "168",
            "log.retention.bytes": "1073741824",
            "log.segment.bytes": "134217728",
            # One broker: one copy of everything, and few partitions of what Kafka keeps for itself (50 by default).
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            # Groups form at once, and tests may ask for sessions of a second.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # After a kill -9 the controller holds the broker's place until this has passed: 9 s by default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
            # The default of 128 MB does not go with a heap of 400.
            "log.cleaner.dedupe.buffer.size": "16777216",
        }
        return "".join(f"{key}={value}\n" for key, value in lines.items())
