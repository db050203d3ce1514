"""The chart before a real API server, with KubeRay's operator: `make kube-test`. Two nodes, in their own namespaces."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.kubernetes.cluster.cluster import Cluster, why_not
from infra.kubernetes.tools.programs import definitions_dir, notes
from tests.kubernetes.test_chart import CHART, EVERYTHING, of_kind, rendered

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
        made.define(definitions_dir())
        yield made


def answer(cluster: Cluster, objects: list[dict[str, Any]]) -> list[str]:
    """What the server says of objects that it is asked to check as strictly as it can, and to keep none of."""
    asked = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    return cluster.kubectl(*asked, stdin=yaml.safe_dump_all(objects)).splitlines()


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the rules of Prometheus in it, as `make chart` packs it."""
    copy = tmp_path_factory.mktemp("chart") / "chart"
    shutil.copytree(CHART, copy)
    shutil.copytree(CHART.parents[1] / "observability" / "rules", copy / "rules", dirs_exist_ok=True)
    return copy


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["by default", "everything"])
def test_the_server_takes_each_object(cluster: Cluster, chart: Path, values: dict[str, Any]) -> None:
    ours = rendered(values, chart)
    if "strimzi" not in notes():  # its definitions need a newer Java
        ours = [one for one in ours if not one["apiVersion"].startswith("kafka.strimzi.io/")]
    told = answer(cluster, ours)
    print(*told, sep="\n")  # noqa: T201
    assert len(told) == len(ours) >= 9
    assert all(line.endswith("created (server dry run)") for line in told), told


@pytest.mark.parametrize(
    "kind", ["RayService", "PodMonitor", "PrometheusRule", "KafkaNodePool", "KafkaTopic", "KafkaUser"]
)
def test_the_server_is_strict(cluster: Cluster, chart: Path, kind: str) -> None:
    if kind.startswith("Kafka") and "strimzi" not in notes():
        pytest.skip("no definitions of Strimzi in the cache: `make kube-tools` makes them, with Java 21")
    one = of_kind(rendered(EVERYTHING, chart), kind)[0]
    one["spec"]["retries"] = 1
    with pytest.raises(RuntimeError, match=r'unknown field "spec.retries"'):
        answer(cluster, [one])


def test_a_second_node_comes_and_is_drained(cluster: Cluster) -> None:
    name = cluster.add_node()
    assert "Ready" in cluster.kubectl("get", "node", name)
    assert "drained" in cluster.kubectl("drain", name, "--ignore-daemonsets", "--timeout=60s")
    assert "SchedulingDisabled" in cluster.kubectl("get", "node", name)
