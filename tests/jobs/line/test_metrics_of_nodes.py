"""The metrics of three nodes add up to what was sent: whoever dies, nothing that was counted is forgotten."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from jobs.line.deploy import rest_address
from model import ModelBundle
from tests.jobs.line.cluster_line import ClusterLine, answers, cluster_line, scraped, until

if TYPE_CHECKING:
    from tests.conftest import Plant

pytestmark = [
    pytest.mark.servers,
    pytest.mark.apache,
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
]
NODES = 3


@pytest.fixture(scope="module")
def line(apache: "Plant", tiny_bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterLine]:
    folder = tmp_path_factory.mktemp("ray")
    with cluster_line(apache, tiny_bundle, folder, NODES, replicas=NODES, max_replicas_per_node=1) as made:
        yield made


def test_images_judged_on_all_nodes_are_images_sent(line: ClusterLine, eventually: Callable[..., None]) -> None:
    addresses = line.addresses()
    assert len(addresses) == NODES
    assert len({address.rpartition(":")[0] for address in addresses}) == NODES, "one of each node"
    line.inspect(120, eventually)
    eventually(lambda: line.totals()["linewatch_images_total"] == line.sent, what="all are counted")
    totals = line.totals()
    each = [scraped(address)["linewatch_images_total"] for address in addresses]
    assert all(0 < one < line.sent for one in each), f"each node has its own, and no other's: {each}"
    assert totals["linewatch_capture_to_commit_seconds_count"] == line.sent
    assert totals["linewatch_capture_to_commit_seconds_bucket +Inf"] == line.sent
    assert totals["linewatch_capture_to_commit_seconds_bucket 30.0"] <= line.sent
    assert totals["linewatch_transaction_images_sum"] == line.sent
    assert totals["linewatch_replicas"] == NODES
    assert totals["linewatch_replicas_wanted"] == NODES * NODES, "each node tells it"


def test_prometheus_finds_them_by_http(line: ClusterLine) -> None:
    with urllib.request.urlopen(f"{rest_address(line.session)}/metrics/targets", timeout=30) as answer:
        (told,) = json.loads(answer.read())
    assert [f"http://{target}/metrics" for target in told["targets"]] == line.addresses()


def test_what_a_killed_replica_counted_is_kept(line: ClusterLine, eventually: Callable[..., None]) -> None:
    line.inspect(60, eventually)
    eventually(lambda: line.totals()["linewatch_images_total"] == line.sent, what="all are counted")
    addresses, before = line.addresses(), line.totals()
    pid = line.running()[0]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    # At once, while no replica is on that node: its exporter outlives it.
    eventually(lambda: line.totals()["linewatch_replicas"] == NODES - 1, what="one replica fewer is told")
    assert line.addresses() == addresses
    after = line.totals()
    for name in ("linewatch_images_total", "linewatch_capture_to_commit_seconds_count", "linewatch_sessions_total"):
        assert after[name] >= before[name], name
    assert after["linewatch_images_total"] == line.sent
    until(lambda: line.totals()["linewatch_replicas"] == NODES, 120, "its successor counts")
    line.inspect(60, eventually)
    eventually(lambda: line.totals()["linewatch_images_total"] == line.sent, what="all are counted, once")


def test_an_exporter_that_is_killed_comes_back_with_all(line: ClusterLine) -> None:
    from ray.util.state import list_actors

    address = line.addresses()[0]
    before = line.totals()["linewatch_images_total"]
    (mine,) = [
        one
        for one in list_actors(filters=[("class_name", "=", "Exporter"), ("state", "=", "ALIVE")])
        if one.name and one.name.endswith(address.removeprefix("http://").removesuffix("/metrics"))
    ]
    os.kill(mine.pid, signal.SIGKILL)
    until(lambda: answers(address), 120, "it answers again")
    assert line.totals()["linewatch_images_total"] == before


def test_a_node_that_dies_is_no_target_any_more_and_a_new_one_is(
    line: ClusterLine, eventually: Callable[..., None]
) -> None:
    from pipeline.serving.exporter import targets  # here: once Ray is imported its way to authenticate is fixed

    before = line.addresses()
    gone = line.nodes.kill(0.0)
    until(lambda: not any(gone in target for target in targets()), 120, "the dead node is no target")
    line.add_node()
    until(lambda: len(targets()) == NODES, 240, "the new node is a target")
    assert set(line.addresses()) - set(before)
    rest = {address: scraped(address)["linewatch_images_total"] for address in line.addresses() if address in before}
    line.inspect(60, eventually)
    eventually(
        lambda: (
            sum(scraped(address)["linewatch_images_total"] for address in line.addresses()) - sum(rest.values()) == 60
        ),
        what="what came since is counted by those that live",
    )
