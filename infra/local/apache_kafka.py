"""Apache Kafka itself (KRaft): one broker that is its own controller, or a cluster of three such."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import uuid
from typing import ClassVar

from infra.local.errors import NotReady
from infra.local.kafka_jars import KAFKA_VERSION, ensure_jars, find_java, have_jars, jars_dir
from infra.local.kafka_properties import server_properties
from infra.local.program import Found, Missing, Program, Role, Say
from infra.local.readiness import probe_kafka

OLDEST_JAVA = 17
FORMAT_WITHIN_S = 120
HOW_TO_GET = "Install Java 17 or newer and Maven (Debian: `apt-get install openjdk-17-jre-headless maven`)."
JVM_OPTIONS = (
    # Without the optimising compiler it starts in some two thirds of the CPU time; for what it is here, it stays ahead.
    "-XX:TieredStopAtLevel=1",
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
logger.group.name = org.apache.kafka.coordinator.group
logger.group.level = info
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
    # Three JVMs that start beside other work; one that ends is told at once all the same.
    ready_within_s: ClassVar[float] = 180.0

    def prepare(self, say: Say) -> None:
        ensure_jars(say)
        # Written anew each time: ports may have changed, and they are stored nowhere else.
        properties = server_properties(self.number, self.cluster, self.majority, self.host)
        (self.folder / "server.properties").write_text(properties, encoding="ascii")
        (self.folder / "log4j2.properties").write_text(LOG4J, encoding="ascii")
        if not (self.folder / "log" / "meta.properties").exists():
            self._format()

    def command(self) -> list[str]:
        heap = "-Xmx400m" if len(self.cluster) == 1 else "-Xmx300m"
        return [self.binary, heap, *JVM_OPTIONS, "-cp", f"{jars_dir()}/*", "kafka.Kafka", "server.properties"]

    def environment(self) -> dict[str, str]:
        return {}

    def probe(self) -> None:
        probe_kafka(self.endpoint, node=self.number, brokers=len(self.cluster))

    def _format(self) -> None:
        java = [self.binary, *JVM_OPTIONS, "-cp", f"{jars_dir()}/*"]
        # `--cluster-id=` with the value attached: a random id may start with "-".
        words = ["format", f"--cluster-id={self._cluster_id()}", "-c", "server.properties", "-g"]
        done = subprocess.run(
            [*java, "kafka.tools.StorageTool", *words],
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

    def _cluster_id(self) -> str:
        """All of a cluster must have the same: the one that another broker was formatted with, else a new one."""
        for formatted in self.folder.parent.glob("*/log/meta.properties"):
            if told := re.search(r"^cluster\.id=(\S+)$", formatted.read_text(encoding="ascii"), re.MULTILINE):
                return told[1]
        return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
