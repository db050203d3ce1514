"""A line by the chart on a real Kubernetes with KubeRay, while pods die and Ray is upgraded: `make kube-test`.

Kafka and S3 run beside the cluster, on its network. Pods borrow this machine's Python and this checkout.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.kubernetes.cluster.cluster import BORROWER, Cluster, why_not
from tests.kubernetes.test_chart import CHART

REASON = why_not()
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
ROOT = Path(__file__).parents[2]
BORROWED = ["/usr", sys.base_prefix, str(ROOT)]
IMAGES, FPS = 2000, 15
ADDRESS = "10.77.0.10"


class KubernetesLine:
    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.told: dict[str, str] = json.loads((folder / "told.json").read_text())
        for account in ("replica", "fitter", "setup"):
            keys = [f"--from-literal=s3.{name}={self.told[name]}" for name in ("access_key", "secret_key")]
            cluster.kubectl("create", "secret", "generic", f"linewatch-{account}", *keys)

    def helm(self, verb: str, **pods: Any) -> None:
        volumes = [{"name": f"borrowed-{i}", "hostPath": {"path": path}} for i, path in enumerate(BORROWED)]
        mounts = [{"name": f"borrowed-{i}", "mountPath": path, "readOnly": True} for i, path in enumerate(BORROWED)]
        memory = {"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
        group = {
            "name": "cpu", "nodes": 1, "minNodes": 1, "maxNodes": 1, "gpus": 0, "objectStoreBytes": 100_000_000,
            "resources": memory, "nodeSelector": {}, "tolerations": [],
        }  # fmt: skip
        values = {
            "image": dict(zip(("repository", "tag"), BORROWER.split(":"), strict=True)),
            "settings": {
                "kafka": {"bootstrap_servers": self.told["kafka"]},
                "s3": {"endpoint": self.told["s3"]},
                "topics": {"partitions": 4},
                "engine": {"threads": 1},
            },
            "ray": {"head": {"resources": memory, "objectStoreBytes": 100_000_000}},
            "serving": {"replicas": 1, "allowAnonymous": True, "groups": [group]},
            "pods": {"volumes": volumes, "volumeMounts": mounts, **pods},
        }
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        self.cluster.run("helm", verb, "line", CHART, "--values", file, "--timeout", "280s", timeout_s=300)

    def linewatch(self, *words: str | Path) -> list[str]:
        names = ("KAFKA__BOOTSTRAP_SERVERS", "S3__ENDPOINT", "S3__ACCESS_KEY", "S3__SECRET_KEY")
        values = (self.told[key] for key in ("kafka", "s3", "access_key", "secret_key"))
        given = [f"LINEWATCH_{name}={value}" for name, value in zip(names, values, strict=True)]
        program = Path(sys.prefix) / "bin" / "linewatch"
        return self.cluster.inside(["env", f"PYTHONPATH={ROOT}", *given, program, *words])

    def pod(self, node_type: str) -> str:
        return self.cluster.kubectl("get", "pods", "-l", f"ray.io/node-type={node_type}", "-o", "name").split()[0]

    def ray_clusters(self) -> list[str]:
        return self.cluster.kubectl("get", "rayclusters", "-o", "name").split()

    def ready(self) -> None:
        self.cluster.wait_for("rayservice/line", "Ready", within_s=400)


@pytest.fixture(scope="module")
def line() -> Iterator[KubernetesLine]:
    environment = [f"PATH={sys.prefix}/bin:/usr/bin:/bin", "HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8"]
    with (
        tempfile.TemporaryDirectory(prefix="lk") as name,
        Cluster(Path(name), lambda told: print(told, flush=True), environment) as cluster,  # noqa: T201
    ):
        folder = Path(name)
        words = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.kubernetes.servers"]
        servers = subprocess.Popen(cluster.inside([*words, folder, ADDRESS, str(IMAGES)]))
        try:
            cluster.install_operator("kuberay")
            until(lambda: servers.poll() is not None or (folder / "told.json").exists(), 200, "the servers")
            made = KubernetesLine(cluster, folder)
            made.helm("install")
            made.ready()
            yield made
        finally:
            servers.terminate()
            servers.wait(60)


def test_nothing_is_lost_while_pods_die_and_ray_is_upgraded(line: KubernetesLine, tmp_path: Path) -> None:
    with (tmp_path / "replay.log").open("w") as log:
        camera = subprocess.Popen(
            line.linewatch("replay", line.folder / "pictures", "--product", line.told["product"], "--fps", str(FPS)),
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            time.sleep(10)
            line.cluster.kubectl("delete", line.pod("worker"), "--wait=false")
            time.sleep(30)
            line.ready()
            line.cluster.kubectl("delete", line.pod("head"), "--wait=false")
            time.sleep(30)
            line.ready()
            (before,) = line.ray_clusters()
            line.helm("upgrade", env=[{"name": "UPGRADED", "value": "1"}])
            until(lambda: before not in line.ray_clusters(), 400, "the old cluster is gone")
            line.ready()
            assert camera.wait(300) == 0, (tmp_path / "replay.log").read_text()
        finally:
            camera.kill()
    audit = line.linewatch("audit")
    until(lambda: subprocess.run(audit, capture_output=True, check=False).returncode == 0, 300, "all have their event")
    told = subprocess.run(audit, capture_output=True, text=True, check=True).stdout
    print(told)  # noqa: T201
    rows = {words[0]: words[1] for words in map(str.split, told.splitlines()) if len(words) > 1}
    assert (rows["lost"], rows["doubled_same_id"], rows["doubled_other"]) == ("0", "0", "0")
    assert f"each of {IMAGES} images has its outcome" in told


def until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(1)
