"""Metrics of one node: a process that outlives its replicas and answers Prometheus for all of them.

But not for long: to Ray's autoscaler a node with an actor on it is busy, and would stay for ever.

Replicas keep their counts in files of their node (`pipeline/serving/node.py`), which a replica that is killed leaves
behind whole. This reads them. It loads neither torch nor settings: it stands on every node and is to be small.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import ServingError
from pipeline.serving import node
from pipeline.serving.metrics_server import START_S, MetricsServer
from pipeline.telemetry import metrics

NAMESPACE = "linewatch"
PREFIX = "metrics-of-"
REPLICA = "ray::ServeReplica:linewatch:"
"""How Ray calls the process of a replica."""
LONELY_S = 60.0
"""An exporter ends where no replica was for so long: longer than a killed one's successor takes, and than a scrape."""
LOOK_S = 5.0


class Exporter:
    """A Ray actor, one a node."""

    def __init__(self, folder: str, port: int, tls: dict[str, str]) -> None:
        """folder: this node's. tls: see `MetricsServer`."""
        self._server = MetricsServer(node.address(), port, tls, lambda: metrics.exposition(Path(folder)))
        name = f"{PREFIX}{node.address()}:{port}"
        threading.Thread(target=wait_until_lonely, args=[replica_is_here, lambda: _end(name)], daemon=True).start()

    def ready(self) -> str:
        """Its address, once it answers; raises ServingError where its port is taken."""
        return self._server.ready()


def replica_is_here() -> bool:
    """Whether one runs or starts on this node: its process is a child of the node's, as this one is."""
    for process in psutil.Process(os.getppid()).children():
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(REPLICA):
                return True
    return False


def wait_until_lonely(
    somebody: Callable[[], bool], end: Callable[[], None], lonely_s: float = LONELY_S, look_s: float = LOOK_S
) -> None:
    """Call `end` once nobody was there for `lonely_s`."""
    last = time.monotonic()
    while time.monotonic() - last < lonely_s:
        time.sleep(look_s)
        if somebody():
            last = time.monotonic()
    end()


def ensure_exporter(port: int, tls: dict[str, str]) -> None:
    """Called by each replica as it starts: one exporter on its node, on this port, whoever comes first."""
    name = f"{PREFIX}{node.address()}:{port}"
    for other in _names():
        if other != name and other.startswith(f"{PREFIX}{node.address()}:"):
            _end(other)  # on the port of settings before; two would count everything twice
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Exporter)
    actor.options(
        name=name,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        scheduling_strategy=here,
        runtime_env={"env_vars": {node.FOLDER: ""}},  # it counts nothing itself
    ).remote(os.environ["PROMETHEUS_MULTIPROC_DIR"], port, tls)


def targets() -> list[str]:
    """Address and port of each node's exporter. That of a node that is gone is gone too."""
    return sorted(name.removeprefix(PREFIX) for name in _names())


def refusals() -> list[str]:
    """Why there are nodes whose metrics nobody can ask for; asked of each exporter."""
    found = []
    for name in _names():
        try:
            ray.get(ray.get_actor(name, NAMESPACE).ready.remote(), timeout=2 * START_S)
        except (ray.exceptions.RayError, ValueError, ServingError) as error:
            found.append(f"{name.removeprefix(PREFIX)}: {str(error).strip().splitlines()[-1][:200]}")
    return found


def end_exporters() -> None:
    """All of this cluster's."""
    for name in _names():
        _end(name)


def _end(name: str) -> None:
    with suppress(ValueError):  # gone meanwhile
        ray.kill(ray.get_actor(name, NAMESPACE))


def _names() -> list[str]:
    found = ray.util.list_named_actors(all_namespaces=True)
    return [one["name"] for one in found if one["namespace"] == NAMESPACE and one["name"].startswith(PREFIX)]
