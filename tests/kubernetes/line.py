"""A line on a Kubernetes of its own, brought up by the commands of docs/deploy.md.

Kafka and S3 are pods, too. Without an image pods borrow this machine's Python and this checkout. Over the page's values
stands what `overlay` has.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from infra.kubernetes.cluster.cluster import BORROWER, Cluster
from tests.kubernetes import stores
from tests.kubernetes.page import commands
from tests.pipeline.tiny import texture

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"
ENVIRONMENT = [f"PATH={sys.prefix}/bin:/usr/bin:/bin", "HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8"]
GOOD, MORE, TODAY, A_CAMERA, DIFFERENT = 40, 6, 12, 500, 40
FIRST = {"kubernetes.io/hostname": "node1"}
COMPONENT = "app.kubernetes.io/component"


class Line:
    def __init__(self, cluster: Cluster, folder: Path, image: str = BORROWER) -> None:
        """folder: an empty one, for the reader of the page to work in. image: linewatch's, which the first node has."""
        self.cluster, self.folder, self.image = cluster, folder, image
        self.page = commands(PAGE)
        self._pictures()
        (folder / "infra").symlink_to(ROOT / "infra")
        self.overlay = folder / "overlay.yaml"
        self.overlay.write_text(yaml.safe_dump(overlay(folder if image == BORROWER else None)))

    def start_stores(self) -> None:
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(stores.objects(ROOT)))
        for name in ("kafka", "s3"):
            words = ("rollout", "status", f"statefulset/{name}", "--timeout=280s")
            self.cluster.kubectl("-n", stores.NAMESPACE, *words)

    def follow(self, heading: str) -> str:
        """Run what the page says under a heading; what it printed."""
        return self.shell(self.page[heading])

    def shell(self, script: str, timeout_s: float = 900) -> str:
        repository, _, tag = self.image.rpartition(":")
        prelude = f"""set -euo pipefail
cd {self.folder}
export KAFKA={stores.KAFKA} S3={stores.S3} IMAGE={repository} TAG={tag}
export S3_ACCESS_KEY={stores.CREDENTIALS.access_key} S3_SECRET_KEY={stores.CREDENTIALS.secret_key}
helm() {{
  case $1 in install|upgrade) command helm "$@" --values {self.overlay};; *) command helm "$@";; esac
}}
tools=$(kubectl -n line get pod -l {COMPONENT}=tools -o jsonpath='{{.items[*].metadata.name}}' 2>/dev/null || true)
"""
        return self.cluster.run("bash", "-c", prelude + script, timeout_s=timeout_s)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", "line", *words, stdin=stdin)

    def upgrade(self, **values: Any) -> None:
        """As the page does, with these values besides."""
        sets = " ".join(f"--set-json '{name}={json.dumps(value)}'" for name, value in values.items())
        self.shell(f"helm upgrade line infra/kubernetes/chart --namespace line --values values.yaml {sets}")

    def pods(self, component: str) -> list[str]:
        """Those that are not ending."""
        found = json.loads(self.kubectl("get", "pods", "-l", f"{COMPONENT}={component}", "-o", "json"))["items"]
        return [one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]]

    def containers(self, component: str) -> set[str]:
        """By id: a pod may have another than before."""
        ids = "jsonpath={.items[*].status.containerStatuses[*].containerID}"
        return set(self.kubectl("get", "pods", "-l", f"{COMPONENT}={component}", "-o", ids).split())

    def ray_clusters(self) -> list[str]:
        return self.kubectl("get", "rayclusters", "-o", "name").split()

    def settled(self) -> None:
        """The head and two nodes for replicas are there and ready, and so is what Serve runs on them."""

        def holds() -> bool:
            heads, replicas = self.pods("head"), self.pods("replica")
            ready = [f"pod/{each}" for each in [*heads, *replicas]]
            self.kubectl("wait", "--for=condition=Ready", "--timeout=1s", "rayservice/line", *ready)
            return (len(heads), len(replicas)) == (1, 2)

        until(holds, 400, "the line is whole")

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "-n", "line", "exec", "deploy/line-tools", "--", "linewatch", *words]
        return subprocess.run(self.cluster.inside(command), capture_output=True, text=True, check=False)

    def start_cameras(self, count: int, fps: float, first: int = 0) -> None:
        """Each a pod of its own that sends `A_CAMERA` images, and ends. first: number of the first."""
        volumes, mounts = stores.borrowed("/usr", sys.base_prefix, ROOT, self.folder / "pictures")
        access, secret = stores.CREDENTIALS.access_key, stores.CREDENTIALS.secret_key
        given = {"KAFKA__BOOTSTRAP_SERVERS": stores.KAFKA, "S3__ENDPOINT": stores.S3}
        given |= {"S3__ACCESS_KEY": access, "S3__SECRET_KEY": secret}
        environment = [{"name": f"LINEWATCH_{name}", "value": value} for name, value in given.items()]
        words = ["linewatch", "replay", str(self.folder / "pictures"), "--product", "cap", "--fps", str(fps)]
        pods = [
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": f"camera-{number}", "labels": {"app": "camera"}},
                "spec": {
                    "nodeName": "node1", "restartPolicy": "Never", "volumes": volumes,
                    "containers": [{
                        "name": "camera", "image": BORROWER, "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts,
                        "env": environment, "command": [*words, "--camera", f"/plant/line{number + 2}/cam1"],
                    }],
                },
            }
            for number in range(first, first + count)
        ]  # fmt: skip
        self.cluster.kubectl("-n", stores.NAMESPACE, "apply", "-f", "-", stdin=yaml.safe_dump_all(pods))

    def cameras(self) -> list[str]:
        """What has become of each: Running, Succeeded, Failed."""
        phases = ("get", "pods", "-l", "app=camera", "-o", "jsonpath={.items[*].status.phase}")
        return self.cluster.kubectl("-n", stores.NAMESPACE, *phases).split()

    def _pictures(self) -> None:
        for name in ("good", "more", "today", "pictures"):
            (self.folder / name).mkdir()
        for number in range(GOOD):
            (self.folder / "good" / f"{number:02}.png").write_bytes(texture(number))
        for number in range(MORE):
            (self.folder / "more" / f"{number:02}.png").write_bytes(texture(GOOD + number))
        for number in range(TODAY):
            (self.folder / "today" / f"{number:02}.png").write_bytes(texture(100 + number, spot=number % 4 == 0))
        for number in range(A_CAMERA):
            path = self.folder / "pictures" / f"{number:03}.png"
            if number < DIFFERENT:
                path.write_bytes(texture(200 + number, spot=number % 4 == 0))
            else:
                os.link(self.folder / "pictures" / f"{number % DIFFERENT:03}.png", path)


def overlay(folder: Path | None) -> dict[str, Any]:
    """What stands over the page's values: where pods borrow from, where they go, and how large they are.

    folder: of the pictures that they borrow, too; None: they have an image, all on the first node, and one replica.
    """
    volumes, mounts = stores.borrowed("/usr", sys.base_prefix, ROOT, folder / "pictures") if folder else ([], [])
    nodes = 2 if folder else 1
    memory = {"requests": {"cpu": "100m", "memory": "700Mi"}, "limits": {"memory": "4Gi"}}
    group = {
        "name": "cpu", "nodes": nodes, "minNodes": nodes, "maxNodes": nodes, "gpus": 0,
        "objectStoreBytes": 100_000_000, "resources": memory, "tolerations": [],
        "nodeSelector": {} if folder else FIRST,
    }  # fmt: skip
    return {
        "settings": {"engine": {"threads": 1}, "fit": {"size": 64, "steps": 12, "batch": 8}},
        "ray": {"head": {"resources": memory, "objectStoreBytes": 100_000_000, "nodeSelector": FIRST}},
        "serving": {"replicas": nodes, "groups": [group], "oldClusterDeletionDelaySeconds": 10},
        "fitting": {"head": {"resources": memory}, "nodeSelector": {} if folder else FIRST},
        "tools": {"nodeSelector": FIRST},
        "pods": {"volumes": volumes, "volumeMounts": mounts},
    }


def until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    deadline, last = time.monotonic() + within_s, ""
    while True:
        try:
            if holds():
                return
        except RuntimeError as error:
            last = str(error)
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}; {last}"
        time.sleep(1)
