"""Doing what the plan says: to replicas, servers and nodes that run right now."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import psutil

from infra.local import LocalServers
from infra.local.network import Network
from infra.local.server import Server
from jobs.chaos.plan import Fault, Kind
from jobs.line.deploy import replicas
from jobs.session.cluster import Nodes
from jobs.session.ray_session import RaySession

BROKER_DOWN_S = 3.0
STORE_DOWN_S = 3.0
NODE_DOWN_S = 5.0
CUT_S = 30.0
VICTIM_S = 30.0
"""How long a fault waits for a replica that runs: the one before may have taken the last."""


class Timeline:
    """What was done to whom, a line of JSON each."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._begun = time.monotonic()
        self.counts: Counter[Kind] = Counter()

    def note(self, kind: Kind, what: str, **facts: object) -> None:
        at_s = round(time.monotonic() - self._begun, 2)
        time_of_day = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {"at_s": at_s, "time": time_of_day, "kind": kind, "what": what, **facts}
        with self._path.open("a") as file:
            file.write(json.dumps(told) + "\n")
        self._say(f"{at_s:.0f} s: {what}")


class Faults:
    """Each kind in a thread of its own, so that a broker can be away while a replica dies."""

    def __init__(
        self,
        servers: LocalServers,
        session: RaySession,
        nodes: Nodes,
        network: Network | None,
        timeline: Timeline,
        session_timeout_s: float,
    ) -> None:
        """network: its first host has the servers, its others the nodes; None where all share this machine's."""
        self._network = network
        self._servers, self._session, self._nodes, self._timeline = servers, session, nodes, timeline
        self._stopped_s = session_timeout_s + 2
        self._stopped: set[int] = set()
        self._errands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._over = Event()
        self._threads: list[Thread] = []

    def run(self, planned: Sequence[Any], begun: float) -> None:
        """Start doing it. planned: of each kind the endless faults in order of time."""
        for faults in planned:
            self._threads.append(Thread(target=self._do_all, args=(faults, begun), daemon=True))
            self._threads[-1].start()

    def run_errands(self) -> None:
        """Of the main thread, and to be called by it every now and then: only there can Ray start a node."""
        while not self._errands.empty():
            self._errands.get()()

    def end(self) -> None:
        """No more faults; the servers that were taken away are there again when this returns."""
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def _do_all(self, faults: Any, begun: float) -> None:
        for fault in faults:
            if self._over.wait(max(0.0, begun + fault.at_s - time.monotonic())):
                return
            try:
                self._do(fault)
            except Exception as error:  # a fault that failed is no reason to end
                self._timeline.note(fault.kind, f"{fault.kind}: could not be done: {type(error).__name__}: {error}")

    def _do(self, fault: Fault) -> None:
        match fault.kind:
            case "replica":
                self._kill_replica(fault)
            case "stopped":
                self._stop_replica(fault)
            case "broker":
                brokers = self._servers.brokers
                self._restart(fault, brokers[int(fault.pick * len(brokers))], BROKER_DOWN_S)
            case "store":
                self._restart(fault, self._servers.s3, STORE_DOWN_S)
            case "node":
                self._kill_node(fault)
            case "cut":
                assert self._network
                self._cut_off(fault, 1 + int(fault.pick * (self._network.hosts - 1)))
            case "split":
                self._cut_off(fault, 0)

    def _kill_replica(self, fault: Fault) -> None:
        process = self._await_replica(fault)
        process.kill()
        self._done(fault, f"kill -9 of replica {process.pid}")

    def _stop_replica(self, fault: Fault) -> None:
        process = self._await_replica(fault)
        self._stopped.add(process.pid)
        try:
            process.suspend()
            self._done(fault, f"replica {process.pid} stopped for {self._stopped_s:.0f} s")
            self._over.wait(self._stopped_s)
        finally:
            if process.is_running():
                process.resume()
            self._stopped.discard(process.pid)

    def _restart(self, fault: Fault, server: Server, down_s: float) -> None:
        server.kill()
        self._done(fault, f"kill -9 of {server.name}, away for {down_s:.0f} s")
        self._over.wait(down_s)
        server.start()

    def _kill_node(self, fault: Fault) -> None:
        name = self._nodes.kill(fault.pick)
        self._done(fault, f"node {name} killed with all on it")
        self._over.wait(NODE_DOWN_S)
        self._errands.put(self._nodes.add)

    def _cut_off(self, fault: Fault, host: int) -> None:
        assert self._network
        name = f"{self._network.address(host)} ({'the servers' if host == 0 else 'a worker'})"
        try:
            self._network.pull(host)
            self._done(fault, f"cable of {name} pulled for {CUT_S:.0f} s")
            self._over.wait(CUT_S)
        finally:
            self._network.plug(host)
            self._timeline.note(fault.kind, f"cable of {name} plugged in again")

    def _await_replica(self, fault: Fault) -> psutil.Process:
        """The one that the fault picks.

        Raises: RuntimeError where none runs for a while, or the run is over.
        """
        why, until = "no replica runs", time.monotonic() + VICTIM_S
        while True:
            try:
                if running := self._running():
                    return running[int(fault.pick * len(running))]
            except Exception as error:  # Serve itself may be what the fault before took
                why = f"Serve does not tell its replicas: {type(error).__name__}: {error}"
            if time.monotonic() > until or self._over.wait(0.5):
                raise RuntimeError(why)

    def _running(self) -> list[psutil.Process]:
        """Serve calls a replica running until it misses it: ones that this run has killed are asked for themselves."""
        pids = sorted(one["pid"] for one in replicas(self._session) if one["state"] == "RUNNING" and one.get("pid"))
        return [psutil.Process(pid) for pid in pids if pid not in self._stopped and _lives(pid)]

    def _done(self, fault: Fault, what: str) -> None:
        self._timeline.counts[fault.kind] += 1
        self._timeline.note(fault.kind, what)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
