"""A Ray cluster of several nodes on one machine: a head without processors for replicas, and workers that can die."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from infra.local.network import Network
from infra.local.ports import free_port
from jobs.session.ending import handlers_kept

OBJECT_STORE_BYTES = 100 * 1024 * 1024
RESTART_AFTER_S = 3.0
_FIRST_WORKER = 3  # of 127.0.0.x; .2 is the head


class Nodes(Protocol):
    """The nodes that replicas run on."""

    def add(self) -> None:
        """One for that which was killed, in the main thread: Ray sets signal handlers."""

    def kill(self, pick: float) -> str:
        """A raylet and all on it, at once; returns the node's address. Any thread may."""


class LoopbackNodes:
    """Each with a loopback address of its own; every new one has a new address."""

    def __init__(self, cluster: Any, nodes: int, cpus: int) -> None:
        self._cluster, self._cpus = cluster, cpus
        self._next = _FIRST_WORKER
        self._nodes: list[tuple[str, Any]] = []
        for _ in range(nodes):
            self.add()

    def add(self) -> None:
        address = f"127.0.0.{self._next}"
        self._next = self._next + 1 if self._next < 250 else _FIRST_WORKER
        with handlers_kept():
            node = self._cluster.add_node(
                num_cpus=self._cpus, node_ip_address=address, object_store_memory=OBJECT_STORE_BYTES, wait=True
            )
        self._nodes.append((address, node))

    def kill(self, pick: float) -> str:
        address, node = self._nodes.pop(int(pick * len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        return address


class HostNodes:
    """One on each host but the first, started again whenever it ends, as a service manager would."""

    def __init__(self, network: Network, head: str, cpus: int, folder: Path) -> None:
        self._network, self._head, self._cpus, self._folder = network, head, cpus, folder
        self._over = threading.Event()
        self._running: dict[int, psutil.Process] = {}
        self._keepers = [
            threading.Thread(target=self._keep, args=(host,), daemon=True) for host in range(1, network.hosts)
        ]
        for keeper in self._keepers:
            keeper.start()

    def add(self) -> None:
        """Its keeper does."""

    def kill(self, pick: float) -> str:
        host = 1 + int(pick * (self._network.hosts - 1))
        if process := self._running.get(host):
            _kill_whole(process)
        return self._network.address(host)

    def close(self) -> None:
        self._over.set()
        for process in list(self._running.values()):
            _kill_whole(process)
        for keeper in self._keepers:
            keeper.join(30)

    def _keep(self, host: int) -> None:
        # A folder of its own for what Ray leaves there, as a machine has: nodes write their addresses into it.
        left = self._folder / f"host-{host}"
        left.mkdir()
        own_folder = 'mount --bind "$0" /tmp/ray && exec "$@"'
        command = [
            str(Path(sys.executable).with_name("ray")), "start", f"--address={self._head}",
            f"--node-ip-address={self._network.address(host)}", f"--num-cpus={self._cpus}", "--num-gpus=0",
            f"--object-store-memory={OBJECT_STORE_BYTES}", "--block",
        ]  # fmt: skip
        with (self._folder / f"host-{host}.log").open("ab") as log:
            while not self._over.is_set():
                process = subprocess.Popen(
                    self._network.on(host, ["sh", "-c", own_folder, str(left.absolute()), *command]),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
                self._running[host] = psutil.Process(process.pid)
                if self._over.is_set():
                    _kill_whole(self._running[host])
                process.wait()
                self._over.wait(RESTART_AFTER_S)


def _kill_whole(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        for one in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


@contextmanager
def ray_cluster(nodes: int, cpus: int, network: Network | None, folder: Path) -> Iterator[tuple[str, Nodes]]:
    """Address of the head, and the worker nodes: on the hosts of a network where there is one.

    RAY_AUTH_MODE and RAY_AUTH_TOKEN are those of this process, which must be on the network's first host.
    """
    from ray._private import worker
    from ray.cluster_utils import Cluster

    # The last words of every raylet that is killed, some hundred lines each; they are in Ray's logs too.
    worker.print_to_stdstream = lambda *_, **__: None

    head = {
        "num_cpus": 0,
        "node_ip_address": network.address(0) if network else "127.0.0.2",
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(),  # beside another Ray of this machine
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    with handlers_kept():
        cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        if network is None:
            yield cluster.address, LoopbackNodes(cluster, nodes, cpus)
            return
        hosts = HostNodes(network, cluster.address, cpus, folder)
        try:
            yield cluster.address, hosts
        finally:
            hosts.close()
    finally:
        cluster.shutdown()
