"""A Ray cluster of several nodes on one machine: a head without processors for replicas, and workers that can die."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.deploy import free_port

OBJECT_STORE_BYTES = 100 * 1024 * 1024
_FIRST_WORKER = 3  # of 127.0.0.x; .2 is the head


class WorkerNodes:
    """The nodes that replicas run on."""

    def __init__(self, cluster: Any, nodes: int, cpus: int) -> None:
        self._cluster, self._cpus = cluster, cpus
        self._next = _FIRST_WORKER
        self._nodes: list[tuple[str, Any]] = []
        for _ in range(nodes):
            self.add()

    def add(self) -> None:
        """Start one more, in the main thread: Ray sets signal handlers."""
        address = f"127.0.0.{self._next}"
        self._next = self._next + 1 if self._next < 250 else _FIRST_WORKER
        node = self._cluster.add_node(
            num_cpus=self._cpus, node_ip_address=address, object_store_memory=OBJECT_STORE_BYTES, wait=True
        )
        self._nodes.append((address, node))

    def kill(self, pick: float) -> str:
        """Its raylet and all on it, at once; returns its address. Any thread may."""
        address, node = self._nodes.pop(int(pick * len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        return address


@contextmanager
def ray_cluster(nodes: int, cpus: int) -> Iterator[tuple[str, WorkerNodes]]:
    """Address of the head, and the worker nodes. RAY_AUTH_MODE and RAY_AUTH_TOKEN are those of this process."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "node_ip_address": "127.0.0.2",
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": free_port(),  # beside another Ray of this machine
            "object_store_memory": OBJECT_STORE_BYTES,
        },
    )
    try:
        yield cluster.address, WorkerNodes(cluster, nodes, cpus)
    finally:
        cluster.shutdown()
