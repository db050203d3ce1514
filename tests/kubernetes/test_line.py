"""docs/deploy.md followed word by word on a real Kubernetes with KubeRay: `make kube-test`.

One line for all tests here, which come in the order of a line's life.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.kubernetes.cluster.cluster import BORROWER, Cluster, why_not
from tests.kubernetes.line import A_CAMERA, COMPONENT, ENVIRONMENT, ROOT, TODAY, Line, until
from tests.kubernetes.stores import borrowed

REASON = why_not()
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
CAMERAS, FPS = 4, 1.2
GCS, CLIENT, DASHBOARD, REST = 6379, 10001, 8265, 8000
LOOK = """
import json, socket, sys
def open_(port):
    try:
        socket.create_connection((sys.argv[1], port), timeout=3).close()
        return True
    except OSError:
        return False
print(json.dumps([port for port in map(int, sys.argv[2:]) if open_(port)]))
"""


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
        cluster.add_node()
        cluster.install_operator("kuberay")
        made = Line(cluster, work)
        made.start_stores()
        yield made


def show(*told: object) -> None:
    print(*told, sep="\n", flush=True)  # noqa: T201


def rows(audit: str) -> dict[str, str]:
    return {words[0]: words[1] for words in map(str.split, audit.splitlines()) if len(words) > 1}


def test_the_page_brings_up_a_line(line: Line) -> None:
    line.follow("2. Accounts")
    show(line.follow("3. The line"))
    told = line.follow("4. The first product")
    show(told)
    assert "champion" in told
    told = line.follow("5. The first images")
    show(told)
    until(lambda: f"each of {TODAY} images has its outcome" in line.exec("audit").stdout, 120, "all have their event")
    show(line.follow("6. Every night"))


def test_a_fit_is_run_by_the_schedule(line: Line) -> None:
    before = line.exec("models", "list", "cap").stdout
    line.shell('kubectl -n line cp more "$tools:/tmp/more"')
    assert line.exec("ingest", "/tmp/more", "--product", "cap").returncode == 0
    line.upgrade(**{"fitting.cron": [{"name": "often", "schedule": "* * * * *", "products": ["cap"]}]})

    def fitted() -> bool:
        jobs = json.loads(line.kubectl("get", "jobs", "-o", "json"))["items"]
        owners = {one["metadata"]["name"]: one["metadata"].get("ownerReferences", []) for one in jobs}
        often = [one for one in jobs if "line-fit-often" in {each["name"] for each in owners[one["metadata"]["name"]]}]
        assert not any(one["status"].get("failed") for one in often), often
        return any(one["status"].get("succeeded") for one in often)

    until(fitted, 400, "a fit of the schedule")
    line.upgrade(**{"fitting.cron": []})
    after = line.exec("models", "list", "cap").stdout
    show(after)
    assert len(after.splitlines()) > len(before.splitlines()), "another version"


def reached(line: Line, namespace: str, labels: dict[str, str], address: str, *ports: int) -> list[int]:
    """Which ports of an address a pod with these labels reaches."""
    volumes, mounts = borrowed("/usr", Path(ENVIRONMENT[0].partition("=")[2].split(":")[0]).parent, ROOT)
    name = f"asks-{time.monotonic_ns()}"
    container = {
        "name": "asks", "image": BORROWER, "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts,
        "command": ["/usr/bin/python3", "-c", LOOK, address, *map(str, ports)],
    }  # fmt: skip
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "node1", "restartPolicy": "Never", "containers": [container], "volumes": volumes},
    }  # fmt: skip
    line.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
    done = "--for=jsonpath={.status.phase}=Succeeded"
    line.cluster.kubectl("-n", namespace, "wait", f"pod/{name}", done, "--timeout=120s")
    told: list[int] = json.loads(line.cluster.kubectl("-n", namespace, "logs", name))
    line.cluster.kubectl("-n", namespace, "delete", "pod", name, "--wait=false")
    return told


def test_strangers_do_not_reach_ray(line: Line) -> None:
    (head,) = line.pods("head")
    address = line.kubectl("get", "pod", head, "-o", "jsonpath={.status.podIP}")
    ports = (GCS, CLIENT, DASHBOARD, REST)
    its = {"app.kubernetes.io/name": "linewatch", "app.kubernetes.io/instance": "line"}
    who: dict[str, tuple[str, dict[str, str]]] = {
        "a pod of another namespace": ("default", {}),
        "a pod beside the line": ("line", {}),
        "a pod that is labelled as one of the line, elsewhere": ("default", {**its, COMPONENT: "replica"}),
        "the tools": ("line", {**its, COMPONENT: "tools"}),
        "the operator": ("kuberay", {COMPONENT: "kuberay-operator"}),
        "a replica": ("line", {**its, COMPONENT: "replica"}),
        "a console": ("line", {"app": "console"}),
    }
    line.upgrade(**{"networkPolicies.restFrom": [{"podSelector": {"matchLabels": {"app": "console"}}}]})
    found = {name: reached(line, namespace, labels, address, *ports) for name, (namespace, labels) in who.items()}
    line.upgrade()
    show(*(f"{name}: {told}" for name, told in found.items()))
    assert found == {
        "a pod of another namespace": [],
        "a pod beside the line": [],
        "a pod that is labelled as one of the line, elsewhere": [],
        "the tools": [],
        "the operator": [DASHBOARD, REST],
        "a replica": list(ports),
        "a console": [REST],
    }


def test_a_pod_of_the_line_may_do_nothing_in_kubernetes_and_nothing_in_ray_without_its_token(line: Line) -> None:
    account = "system:serviceaccount:line:line"
    for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "pods"), ("patch", "rayservices.ray.io")):
        command = line.cluster.inside(["kubectl", "auth", "can-i", verb, what, "-n", "line", "--as", account])
        assert subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "no", what
    pod = line.pods("replica")[0]
    with pytest.raises(RuntimeError, match="No such file"):
        line.kubectl("exec", pod, "--", "ls", "/var/run/secrets/kubernetes.io/serviceaccount")
    (head,) = line.pods("head")
    address = line.kubectl("get", "pod", head, "-o", "jsonpath={.status.podIP}")
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' http://{address}:{DASHBOARD}/api/jobs/"
    assert line.kubectl("exec", pod, "--", "sh", "-c", asked) == "401"
    with_token = f'{asked} -H "Authorization: Bearer $RAY_AUTH_TOKEN"'
    assert line.kubectl("exec", pod, "--", "sh", "-c", with_token) == "200"


def test_nothing_is_lost_while_pods_die_a_node_is_drained_and_ray_is_upgraded(line: Line) -> None:
    started = time.monotonic()
    line.start_cameras(CAMERAS, FPS)
    until(lambda: line.cameras() == ["Running"] * CAMERAS, 120, "the cameras are at work")

    def during(what: str) -> None:
        show(f"{time.monotonic() - started:4.0f} s  {what}")
        assert line.cameras() == ["Running"] * CAMERAS, f"the cameras have ended before {what}"

    during("a replica's pod is deleted")
    line.kubectl("delete", "pod", line.pods("replica")[0], "--wait=false")
    line.settled()
    during("a node is drained")
    line.cluster.kubectl("drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=280s")
    line.settled()
    line.cluster.kubectl("uncordon", "node2")
    during("the head's pod is deleted")
    its = line.containers("replica")
    line.kubectl("delete", "pod", line.pods("head")[0], "--wait=false")
    until(lambda: not its & line.containers("replica"), 400, "the replicas' nodes, which end with the head, are new")
    line.settled()
    during("Ray is upgraded")
    (before,) = line.ray_clusters()
    line.upgrade(**{"pods.env": [{"name": "UPGRADED", "value": "1"}]})
    until(lambda: before not in line.ray_clusters(), 400, "the old cluster is gone")
    line.settled()
    during("the new cluster serves alone")
    until(lambda: line.cameras() == ["Succeeded"] * CAMERAS, 400, "the cameras have sent all")
    images = TODAY + CAMERAS * A_CAMERA
    until(lambda: f"each of {images} images has its outcome" in line.exec("audit").stdout, 300, "all have their event")
    told = line.exec("audit").stdout
    show(told)
    found = rows(told)
    assert (found["lost"], found["doubled_same_id"], found["doubled_other"]) == ("0", "0", "0")


def test_the_page_takes_it_away(line: Line) -> None:
    line.follow("Away")
    assert line.cluster.kubectl("get", "namespaces", "-o", "name").split().count("namespace/line") == 0
    assert "line-" not in line.cluster.kubectl("get", "priorityclasses", "-o", "name")
