"""The one thin shell around the worker that knows Ray: a Serve deployment whose replicas are group members.

Images never pass through a deployment handle: each replica's worker thread fetches them from Kafka itself. Handle
calls (REST) go through the same engine.
"""

import os
import time
from typing import Any

import ray
from ray import serve

from pipeline.serving import node

# isort: split
# After `node`: where counts are kept is fixed by the import of what counts.
from pipeline.errors import ServingError
from pipeline.kafka.member_names import cluster_mark
from pipeline.kafka.session import KafkaSession
from pipeline.serving.door import require_door
from pipeline.serving.exporter import ensure_exporter, targets
from pipeline.serving.rest import build_app
from pipeline.settings import Settings
from pipeline.storage.store import S3Store
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import set_up_logging
from pipeline.telemetry.traces import close_traces, set_up_traces

APPLICATION = "linewatch"
DEPLOYMENT = "Inspection"
_replica: "Inspection | None" = None


class Inspection:
    """One replica: a member of the consumer group, and REST on the same engine."""

    def __init__(self, values: dict[str, Any], exactly_once: bool) -> None:
        global _replica
        settings = _with_threads(Settings.received(values))  # secrets come from this process's environment
        set_up_logging(settings.serving.log_format)
        set_up_traces()
        metrics.healthy_at.set(time.time())  # until the first check: loading models takes its time
        require_door(settings.serving)  # here the tokens are this process's own
        self.inspector = Inspector(settings, S3Store(settings.s3))
        self.worker = StreamWorker(
            self.inspector,
            lambda: KafkaSession(settings, rank=_rank, exactly_once=exactly_once, cluster=_cluster()),
        )
        self.inspector.champions.preload()
        self.inspector.champions.watch()
        self.worker.start()
        metrics.replicas.set(1)
        metrics.replicas_wanted.set(settings.serving.replicas)
        ensure_exporter(settings.serving.metrics_port, settings.serving.tls)
        _replica = self

    def check_health(self) -> None:
        """Serve replaces a replica that raises here."""
        reason = self.worker.trouble()
        if reason:
            raise ServingError(reason)
        metrics.healthy_at.set(time.time())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `pipeline.serving.autoscaling.LagPolicy` decides by."""
        return {"lag": self.worker.lag, "images_per_s": self.worker.images_per_s}

    def __del__(self) -> None:
        if hasattr(self, "worker"):  # or the constructor failed before there was anything to stop
            self.worker.stop()
            self.inspector.champions.close()
            close_traces()


def _rank() -> int:
    """This replica's number among those that live; Serve hands on the numbers of replicas that are gone."""
    rank: int = serve.get_replica_context().rank.rank
    return rank


def _cluster() -> str:
    """Of this Ray cluster: another, such as its successor during an upgrade of Ray, hands the same ranks out again."""
    return cluster_mark(ray.get_runtime_context().get_session_name())


def _with_threads(settings: Settings) -> Settings:
    """The node's cores shared out among the replicas, where settings don't say; Ray would give each one thread."""
    if settings.engine.threads is not None:
        return settings
    most = settings.serving.max_replicas or settings.serving.replicas
    threads = max(1, (os.cpu_count() or 1) // most)
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"threads": threads})})


def _app() -> Any:
    def replica() -> Inspection:
        if _replica is None:
            raise ServingError("the replica is still starting")
        return _replica

    return build_app(
        lambda: replica().inspector, lambda: replica().worker.trouble(), lambda: replica().worker.wait_reason, targets
    )


def build(args: dict[str, Any]) -> Any:
    """For Serve's declarative config: ``import_path: pipeline.serving.deployment:build``.

    Args:
        args: ``settings`` (plain values without secrets), ``exactly_once``, and ``generation``, which does nothing
            but differ: another one has Serve replace the replicas, one at a time.
    """
    deployment: Any = serve.deployment(serve.ingress(_app)(Inspection), name=DEPLOYMENT)
    return deployment.bind(args["settings"], args["exactly_once"])


def serve_config(
    settings: Settings, *, exactly_once: bool, metrics_folder: str, generation: str = ""
) -> dict[str, Any]:
    """The whole Serve instance as one declarative config: sending it again changes only what differs.

    Args:
        metrics_folder: where replicas keep their counts, in a folder of each node.
        generation: see :func:`build`.
    """
    serving = settings.serving
    inspection = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": 16,
        "health_check_period_s": 5,
        "health_check_timeout_s": 15,
        "graceful_shutdown_timeout_s": 35,
        "ray_actor_options": {
            "num_cpus": serving.cpus_per_replica,
            "num_gpus": serving.gpus_per_replica,
            "runtime_env": {"env_vars": {node.FOLDER: metrics_folder}},
        },
        **_replicas(settings),
    }
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": serving.host, "port": serving.port, **serving.tls},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "pipeline.serving.deployment:build",
                "args": {"settings": settings.public(), "exactly_once": exactly_once, "generation": generation},
                "deployments": [inspection],
            }
        ],
    }


def _replicas(settings: Settings) -> dict[str, Any]:
    """How many: a fixed number, or scaled on lag."""
    serving = settings.serving
    options: dict[str, Any] = {}
    if serving.max_replicas_per_node is not None:
        options["max_replicas_per_node"] = serving.max_replicas_per_node
    if serving.max_replicas is None:
        return {**options, "num_replicas": serving.replicas}
    scaling = {
        "min_replicas": serving.replicas,
        "max_replicas": serving.max_replicas,
        "upscale_delay_s": serving.upscale_delay_s,
        "downscale_delay_s": serving.downscale_delay_s,
        "policy": {
            "policy_function": "pipeline.serving.autoscaling:LagPolicy",
            "policy_kwargs": {"drain_s": serving.drain_s, "partitions": settings.topics.partitions},
        },
    }
    return {**options, "num_replicas": "auto", "autoscaling_config": scaling}
