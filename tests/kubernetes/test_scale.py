"""Replicas that come and go with the lag, and pods with them; a head whose end the line does not feel.

Ray's autoscaler asks the API server for pods; Redis has what Ray's head knows.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.kubernetes.cluster.cluster import Cluster, why_not
from tests.kubernetes import stores
from tests.kubernetes.line import A_CAMERA, ENVIRONMENT, TODAY, Line, until
from tests.kubernetes.test_line import rows, show

REASON = why_not() or (None if shutil.which("redis-server") else "no redis-server is installed")
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
CAMERAS, BURST, STEADY = 4, 100, 4


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with (
        tempfile.TemporaryDirectory(prefix="lk") as name,
        Cluster(Path(name), lambda told: print(told, flush=True), ENVIRONMENT) as cluster,  # noqa: T201
    ):
        Path(name).chmod(0o755)
        work = Path(name) / "work"
        work.mkdir()
        cluster.enforce_policies()
        cluster.install_operator("kuberay")
        made = Line(cluster, work)
        values = yaml.safe_load(made.overlay.read_text())
        (group,) = values["serving"]["groups"]
        group |= {"nodes": 1, "minNodes": 1, "maxNodes": 2}
        group["resources"]["limits"]["cpu"] = "1"  # what Ray's autoscaler counts with
        values["serving"] |= {"replicas": 1, "maxReplicas": 2, "autoscaleNodes": True, "idleTimeoutSeconds": 20}
        values["settings"]["serving"] = {"downscale_delay_s": 120.0}  # the burst is over before a pod has started
        values["ray"]["gcsFaultTolerance"] = {"redisAddress": stores.REDIS}
        made.overlay.write_text(yaml.safe_dump(values))
        made.start_stores()
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(stores.redis()))
        cluster.kubectl("-n", stores.NAMESPACE, "rollout", "status", "statefulset/redis", "--timeout=280s")
        for heading in ("2. Accounts", "3. The line", "4. The first product", "5. The first images"):
            show(made.follow(heading))
        yield made


def replicas(line: Line) -> int:
    """That run, by Serve's word."""
    (head,) = line.pods("head")
    asked = 'curl -s http://localhost:8265/api/serve/applications/ -H "Authorization: Bearer $RAY_AUTH_TOKEN"'
    told = json.loads(line.kubectl("exec", head, "-c", "ray-head", "--", "sh", "-c", asked))
    (deployment,) = told["applications"]["linewatch"]["deployments"].values()
    return sum(one["state"] == "RUNNING" for one in deployment["replicas"])


def counted(line: Line, images: int) -> None:
    until(lambda: f"each of {images} images has its outcome" in line.exec("audit").stdout, 300, "all have their event")
    found = rows(line.exec("audit").stdout)
    assert (found["lost"], found["doubled_same_id"], found["doubled_other"]) == ("0", "0", "0")


def test_a_lag_brings_a_replica_and_a_pod_for_it_and_both_go_again(line: Line) -> None:
    assert (len(line.pods("replica")), replicas(line)) == (1, 1)
    began = time.monotonic()
    line.start_cameras(CAMERAS, BURST)
    until(lambda: len(line.pods("replica")) == 2, 300, "Ray's autoscaler has asked for a pod")
    show(f"{time.monotonic() - began:4.0f} s  a second pod")
    until(lambda: replicas(line) == 2, 300, "a second replica runs")
    show(f"{time.monotonic() - began:4.0f} s  a second replica")
    until(lambda: line.cameras() == ["Succeeded"] * CAMERAS, 300, "the cameras have sent all")
    until(lambda: len(line.pods("replica")) == 1, 400, "the pod that nothing runs on is gone")
    show(f"{time.monotonic() - began:4.0f} s  one pod")
    counted(line, TODAY + CAMERAS * A_CAMERA)


def test_with_redis_the_end_of_the_head_ends_no_replica(line: Line) -> None:
    its = line.containers("replica")
    line.cluster.kubectl("-n", stores.NAMESPACE, "delete", "pod", "-l", "app=camera")
    line.start_cameras(1, STEADY, first=CAMERAS)
    until(lambda: line.cameras() == ["Running"], 120, "the camera is at work")
    (old,) = line.pods("head")
    line.kubectl("delete", "pod", old, "--wait=false")
    until(lambda: line.pods("head") not in ([], [old]), 120, "another head")
    line.kubectl("wait", "--for=condition=Ready", "--timeout=200s", f"pod/{line.pods('head')[0]}")
    until(lambda: line.cameras() == ["Succeeded"], 300, "the camera has sent all")
    until(lambda: replicas(line) >= 1, 200, "Serve has its replica still")
    counted(line, TODAY + (CAMERAS + 1) * A_CAMERA)
    show(line.exec("audit").stdout)
    assert its <= line.containers("replica"), "the container is the one that was there before"
