"""A whole small plant for the tests: real servers, Ray, fitted models, replicas on Ray Serve."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local import LocalServers
from jobs.demo.ledger import Ledger
from jobs.drawing import draw_dataset
from jobs.fitting.datasets import Datasets, discover
from jobs.fitting.fit import fit_products
from jobs.fitting.release import Releases
from jobs.fitting.task import Task
from jobs.line.deploy import delivery, deploy, replicas, rest_address, shut_down
from jobs.line.replay import replay
from jobs.session.connect import make_store
from jobs.session.ray_session import RaySession, ray_session
from model import ImageLimits, ModelBundle
from pipeline.kafka.capabilities import Capabilities
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.storage.store import S3Store
from tests.pipeline.tiny import publish
from tests.threads import all_live

PRODUCTS = ("flange", "twill")
IMAGE_SIZE = 192
SESSION_TIMEOUT_MS = 6000


@dataclass
class Plant:
    """What the tests hold in their hands."""

    settings: Settings
    servers: LocalServers
    store: S3Store
    session: RaySession
    broker: Capabilities
    images: Path
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def registry(self) -> Registry:
        return Registry(self.store)

    def ledger(self) -> Ledger:
        return Ledger(self.settings, self.store)

    def fit(self, *products: str, seed: int = 0, **options: Any) -> dict[str, str]:
        """Fit and publish, without promoting."""
        settings = self.settings.with_fit({"seed": seed, **options})
        datasets = Datasets(self.store)
        return fit_products(settings, [Task(name, datasets.latest(name).digest, None) for name in products])

    def send(self, ledger: Ledger, product: str, *, fps: float, times: int = 1, camera: str = "/test/cam1") -> None:
        """Replay the product's test images ``times`` over, and enter them in the ledger."""
        sources = {file.path: file for file in discover(self.images / product) if file.labelled}
        replay(
            self.settings,
            self.store,
            list(sources) * times,
            product=product,
            camera=camera,
            fps=fps,
            on_shot=lambda shot: ledger.send(shot, sources[shot.path], product),
        )

    def replica_pids(self) -> list[int]:
        return [one["pid"] for one in replicas(self.session) if one["state"] == "RUNNING" and one.get("pid")]

    def kill_replica(self) -> int:
        pid = self.replica_pids()[0]
        os.kill(pid, signal.SIGKILL)
        return pid

    @property
    def rest(self) -> str:
        return rest_address(self.session)


def settings_for(servers: LocalServers, **sections: Any) -> Settings:
    """Small models, short sessions; a free REST port."""
    os.environ.update(servers.environment())
    return Settings.from_values(
        {
            "kafka": {"session_timeout_ms": SESSION_TIMEOUT_MS},
            "topics": {"partitions": 4},
            "stream": {"heat_maps": "always", "release_poll_s": 0.5},
            "serving": {"port": 0, "metrics_port": 0},
            "fit": {"size": 128, "steps": 80},
            **sections,
        }
    )


@contextmanager
def plant(folder: Path, images: Path, *, kafka: str, s3: str = "seaweedfs") -> Iterator[Plant]:
    """Servers, topics, snapshots and Ray. Nothing is fitted or deployed yet."""
    with ExitStack() as stack:
        servers = LocalServers.start(folder / "servers", kafka=kafka, s3=s3)  # type: ignore[arg-type]
        stack.callback(servers.stop)
        settings = settings_for(servers)
        store = make_store(settings)
        ensure_topics(settings)
        for product in PRODUCTS:
            Datasets(store).ingest(images / product, product, limits=ImageLimits())
        broker = delivery(settings)
        session = stack.enter_context(ray_session(settings))
        stack.callback(shut_down)
        yield Plant(settings, servers, store, session, broker, images)


def start_up(plant: Plant, ready: ModelBundle | None = None) -> None:
    """Fit both products by Ray Train, or take one that is ready for both; promote; deploy the replicas."""
    if ready:
        plant.versions = {product: publish(plant.store, ready, product) for product in PRODUCTS}
    else:
        releases = Releases(plant.settings, plant.store)
        plant.versions = plant.fit(*PRODUCTS)
        for product, version in plant.versions.items():
            releases.consider(product, version, force=True)
    deploy(plant.settings, plant.session, exactly_once=plant.broker.aborts_hidden)


def drawn(folder: Path) -> Path:
    """Images of both products in MVTec layout."""
    for product in PRODUCTS:
        draw_dataset(folder, product, train=32, good=10, defective=10, seed=1, size=IMAGE_SIZE)
    return folder


def wait_for(what: str, condition: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        all_live()
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(0.2)
