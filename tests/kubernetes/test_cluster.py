"""The chart before a real API server, with KubeRay's operator: `make kube-test`. Two nodes, in their own namespaces."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.kubernetes.cluster.cluster import Cluster, why_not
from tests.kubernetes.test_chart import EVERYTHING, KNOWN_HERE, of_kind, rendered

REASON = why_not()
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory(prefix="lk") as folder,  # short, for sockets lie in it
        Cluster(Path(folder), lambda told: print(told, flush=True)) as made,  # noqa: T201
    ):
        made.install_operator("kuberay")
        yield made


def answer(cluster: Cluster, objects: list[dict[str, Any]]) -> list[str]:
    """What the server says of objects that it is asked to check as strictly as it can, and to keep none of."""
    asked = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    return cluster.kubectl(*asked, stdin=yaml.safe_dump_all(objects)).splitlines()


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["by default", "everything"])
def test_the_server_takes_each_object(cluster: Cluster, values: dict[str, Any]) -> None:
    ours = [one for one in rendered(values) if one["apiVersion"] in KNOWN_HERE]  # the others' operators are not here
    told = answer(cluster, ours)
    print(*told, sep="\n")  # noqa: T201
    assert len(told) == len(ours) >= 9
    assert all(line.endswith("created (server dry run)") for line in told), told


def test_the_server_is_strict(cluster: Cluster) -> None:
    (service,) = of_kind(rendered({}), "RayService")
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Never"
    with pytest.raises(RuntimeError, match=r'unknown field .*imagePolicy"'):
        answer(cluster, [service])


def test_a_second_node_comes_and_is_drained(cluster: Cluster) -> None:
    name = cluster.add_node()
    assert "Ready" in cluster.kubectl("get", "node", name)
    assert "drained" in cluster.kubectl("drain", name, "--ignore-daemonsets", "--timeout=60s")
    assert "SchedulingDisabled" in cluster.kubectl("get", "node", name)
