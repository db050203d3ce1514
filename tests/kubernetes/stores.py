"""Kafka and S3 in pods of their own namespace, from programs of this machine that the pods borrow."""

import shutil
from pathlib import Path
from typing import Any

from infra.kubernetes.cluster.cluster import BORROWER
from infra.local.credentials import Credentials
from infra.local.kafka_jars import ensure_jars
from infra.local.kafka_properties import server_properties
from infra.local.program import Found
from infra.local.seaweedfs import SeaweedFS, find_seaweedfs

NAMESPACE = "plant"
KAFKA, S3, REDIS = "kafka.plant:9092", "http://s3.plant:9000", "redis.plant:6379"
CREDENTIALS = Credentials("kube-test", "kube-test-secret")
_PORTS = {"main": 9000, "master": 9333, "volume": 8080, "filer": 8888, "admin": 23646}


def borrowed(*folders: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts, at the same paths and read-only."""
    volumes = [{"name": f"borrowed-{i}", "hostPath": {"path": str(path)}} for i, path in enumerate(folders)]
    mounts = [{"name": f"borrowed-{i}", "mountPath": str(path), "readOnly": True} for i, path in enumerate(folders)]
    return volumes, mounts


def objects(root: Path) -> list[dict[str, Any]]:
    """root: the checkout, whose environment may have SeaweedFS's program."""
    jars = ensure_jars(print)
    weed = find_seaweedfs()
    assert isinstance(weed, Found)
    names = {"main": 9092, "controller": 9093}
    own = "listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093\ncontroller.quorum.voters=1@127.0.0.1:9093\n"
    properties = server_properties(1, (names,), 1, KAFKA.partition(":")[0]) + own + "log.dirs=/data/log\n"
    program = Path(shutil.which("java") or "java").resolve()
    java = f'{program} -Xmx400m -XX:TieredStopAtLevel=1 -XX:-UsePerfData -cp "{jars}/*"'
    kafka = (
        f"test -e /data/log/meta.properties || {java} kafka.tools.StorageTool format -t 5L6g3nShT-eMCtK--X86sw "
        f"-c /settings/server.properties; exec {java} kafka.Kafka /settings/server.properties"
    )
    store = SeaweedFS(weed.binary, weed.version, "", Path("/data"), (_PORTS,), CREDENTIALS, host="0.0.0.0")
    words = ["-ip=127.0.0.1" if word.startswith("-ip=") else word for word in store.command()]
    words = ["-dir=/data" if word.startswith("-dir=") else word for word in words]
    # Debian keeps Java's configuration in /etc, and a link in Java's own folder.
    folders = [
        "/usr",
        jars,
        (program.parents[1] / "conf" / "security" / "java.security").resolve().parents[1],
        root,
    ]
    settings = {"name": "settings", "configMap": {"name": "kafka"}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kafka", "namespace": NAMESPACE},
            "data": {"server.properties": properties},
        },
        *_server("kafka", 9092, ["sh", "-c", kafka], {}, folders, settings),
        *_server("s3", 9000, words, store.environment(), folders),
    ]  # fmt: skip


def redis() -> list[dict[str, Any]]:
    """A Redis that outlives Ray's head; `shutil.which("redis-server")` is asked for before."""
    server = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--save", ""]
    return _server("redis", 6379, server, {}, ["/usr", "/etc/ssl"])


def _server(
    name: str, port: int, command: list[str], environment: dict[str, str], folders: list[Any], *more: dict[str, Any]
) -> list[dict[str, Any]]:
    """On the first node, which is never drained: their data are the pod's own."""
    volumes, mounts = borrowed(*(folder for folder in folders if Path(folder).exists()))
    mounts += [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in more]
    mounts += [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}]
    container = {
        "name": name, "image": BORROWER, "imagePullPolicy": "IfNotPresent", "command": command, "workingDir": "/data",
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "volumeMounts": mounts,
    }  # fmt: skip
    spec = {
        "nodeName": "node1", "enableServiceLinks": False,
        "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
        "containers": [container],
        "volumes": [*volumes, *more, {"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }  # fmt: skip
    picks = {"app": name}
    about = {"name": name, "namespace": NAMESPACE}
    return [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": about,
            "spec": {"selector": picks, "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": about,
            "spec": {
                "serviceName": name, "selector": {"matchLabels": picks},
                "template": {"metadata": {"labels": picks}, "spec": spec},
            },
        },
    ]  # fmt: skip
