"""Ray for a job: the configured cluster, or a private one on this machine that ends with the job."""

import logging
import os
import secrets
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from jobs.session.connect import go_directly
from jobs.session.ending import handlers_kept
from pipeline.errors import ServingError
from pipeline.settings import Settings

OBJECT_STORE_BYTES = 256 * 1024 * 1024
LEAVE_S = 15.0
_current: "RaySession | None" = None


@dataclass(frozen=True)
class RaySession:
    """A running Ray.

    dashboard: URL of what takes Serve's configuration. folder: of this Ray session, the same on every node.
    private: ends with this process.
    """

    dashboard: str
    folder: str
    private: bool


@contextmanager
def ray_session(settings: Settings) -> Iterator[RaySession]:
    """Ray, initialised. A private one ends with the job; a token drawn at random guards its ports.

    Workers inherit this process's environment, so secrets need no pickle.
    """
    _environment(settings)
    import ray

    global _current
    if _current:  # a job within a job shares it
        yield _current
        return
    others = _descendants()
    try:
        context = _start(settings)
        folder = str(context.address_info["session_dir"])
        if not context.dashboard_url:
            raise ServingError(
                f"Ray at {settings.serving.ray_address} has no dashboard, which takes what is to be served: is it "
                "still starting, or was it started without?"
            )
        go_directly([str(context.dashboard_url).rpartition(":")[0]])
        _current = RaySession(f"http://{context.dashboard_url}", folder, private=not settings.serving.ray_address)
        yield _current
    finally:
        whole, _current = _current, None
        processes = _descendants() - others
        with handlers_kept():
            ray.shutdown()
        _see_off(processes, LEAVE_S if whole else 0.0)  # nobody tells a half-started one to end


def nodes(session: RaySession) -> list[dict[str, float]]:
    """The resources of each live node. A private Ray has one, whose CPUs are this machine's, whatever Ray was told."""
    import ray

    found = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    if session.private:
        found = [node | {"CPU": float(os.cpu_count() or 1)} for node in found]
    return found


def _start(settings: Settings) -> Any:
    import ray

    try:
        with handlers_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own; they are no concern of the job
            if settings.serving.ray_address:
                return _attach(settings.serving.ray_address)
            return ray.init(
                address="local",  # never a stray cluster of this machine
                _node_ip_address="127.0.0.2",  # Ray rewrites 127.0.0.1 to the host's outside address
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                num_cpus=max(4, os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
    except SystemExit:  # by what Ray does on SIGTERM while it starts
        signal.raise_signal(signal.SIGTERM)
        raise


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _see_off(processes: set[psutil.Process], leave_s: float) -> None:
    """Wait until they are gone: Ray's dashboard outlives its head by some seconds, and now and then for good."""
    _, left = psutil.wait_procs(processes, timeout=leave_s)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()  # psutil checks that the pid is still the same process
    psutil.wait_procs(left, timeout=LEAVE_S)


def _attach(address: str) -> Any:
    import ray

    try:
        return ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ServingError(
            f"no Ray cluster at {address} ({reason}): is it running, is RAY_AUTH_TOKEN set to its token, and "
            "are RAY_USE_TLS and its files as they are there?"
        ) from None


def _environment(settings: Settings) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # OpenMP's idle threads spin; on a machine that others use too (Kafka, Ray itself) long spins cost minutes a fit.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Ray starts its workers at 15: a replica would stand still beside any process that is busy.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if settings.serving.ray_address:
        # Ray waits 35 s for a cluster that does not answer, and 20 times. One with TLS answers nobody who has none.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    if os.environ["RAY_AUTH_MODE"] == "token" and not settings.serving.ray_address:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_urlsafe(32))
