"""The one thin shell around the worker that knows Ray: a Serve deployment whose replicas are group members.

Images never pass through a deployment handle: each replica's worker thread fetches them from Kafka itself. Handle
calls (REST) go through the same engine.
"""

import logging
import os
from typing import Any

from ray import serve

from pipeline.errors import ServingError
from pipeline.inspector import Inspector
from pipeline.kafka_session import KafkaSession
from pipeline.rest import build_app
from pipeline.settings import Settings
from pipeline.store import S3Store
from pipeline.worker import StreamWorker

APPLICATION = "linewatch"
DEPLOYMENT = "Inspection"
_replica: "Inspection | None" = None


class Inspection:
    """One replica: a member of the consumer group, and REST on the same engine."""

    def __init__(self, values: dict[str, Any], exactly_once: bool) -> None:
        global _replica
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
        logging.getLogger("kafka").setLevel(logging.WARNING)
        settings = _with_threads(Settings.received(values))  # secrets come from this process's environment
        self.inspector = Inspector(settings, S3Store(settings.s3))
        self.worker = StreamWorker(
            self.inspector, lambda: KafkaSession(settings, rank=_rank, exactly_once=exactly_once)
        )
        self.inspector.champions.preload()
        self.inspector.champions.watch()
        self.worker.start()
        _replica = self

    def check_health(self) -> None:
        """Serve replaces a replica that raises here."""
        reason = self.worker.trouble()
        if reason:
            raise ServingError(reason)

    def __del__(self) -> None:
        if hasattr(self, "worker"):  # or the constructor failed before there was anything to stop
            self.worker.stop()
            self.inspector.champions.close()


def _rank() -> int:
    """This replica's number among those that live; Serve hands on the numbers of replicas that are gone."""
    rank: int = serve.get_replica_context().rank.rank
    return rank


def _with_threads(settings: Settings) -> Settings:
    """The node's cores shared out among the replicas, where settings don't say; Ray would give each one thread."""
    if settings.engine.threads is not None:
        return settings
    threads = max(1, (os.cpu_count() or 1) // settings.serving.replicas)
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"threads": threads})})


def _app() -> Any:
    def replica() -> Inspection:
        if _replica is None:
            raise ServingError("the replica is still starting")
        return _replica

    return build_app(lambda: replica().inspector, lambda: replica().worker.trouble())


def build(args: dict[str, Any]) -> Any:
    """For Serve's declarative config: ``import_path: pipeline.serving:build``.

    Args:
        args: ``settings`` (plain values without secrets) and ``exactly_once``.
    """
    deployment: Any = serve.deployment(serve.ingress(_app)(Inspection), name=DEPLOYMENT)
    return deployment.bind(args["settings"], args["exactly_once"])


def serve_config(settings: Settings, *, exactly_once: bool, metrics_folder: str) -> dict[str, Any]:
    """The whole Serve instance as one declarative config: sending it again changes only what differs.

    Args:
        metrics_folder: where the replicas of a node keep their counters for each other; each node makes its own.
    """
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": settings.serving.host, "port": settings.serving.port},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "pipeline.serving:build",
                "args": {"settings": settings.public(), "exactly_once": exactly_once},
                "deployments": [
                    {
                        "name": DEPLOYMENT,
                        "num_replicas": settings.serving.replicas,
                        "max_ongoing_requests": 16,
                        "health_check_period_s": 5,
                        "health_check_timeout_s": 15,
                        "graceful_shutdown_timeout_s": 35,
                        "ray_actor_options": {
                            "num_cpus": settings.serving.cpus_per_replica,
                            "num_gpus": settings.serving.gpus_per_replica,
                            "runtime_env": {"env_vars": {"PROMETHEUS_MULTIPROC_DIR": metrics_folder}},
                        },
                    }
                ],
            }
        ],
    }
