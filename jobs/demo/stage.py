"""What is up while the demo runs: servers, settings, bucket, topics, datasets and Ray; all of it gone afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.local import LocalServers
from jobs.demo.products import DemoProduct
from jobs.fitting.datasets import Datasets
from jobs.line.deploy import delivery, shut_down
from jobs.session.connect import make_store
from jobs.session.progress import Screen
from jobs.session.ray_session import RaySession, ray_session
from pipeline.kafka.capabilities import Capabilities
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.store import S3Store

DRAWN_STEPS = 100  # drawn parts are easy, and somebody is watching


@dataclass(frozen=True)
class DemoOptions:
    """data: MVTec layout, or None to draw products. fps: of each camera. steps: None takes the method's own."""

    data: Path | None = None
    out: Path = Path("demo-results")
    json_file: Path | None = None
    fps: float = 8.0
    seed: int = 0
    steps: int | None = None
    retrain: bool = True
    keep: bool = False
    kafka: Literal["auto", "apache", "tansu"] = "auto"
    s3: Literal["auto", "minio", "seaweedfs"] = "auto"


@dataclass
class Stage:
    """What the rest of the demo works with."""

    settings: Settings
    servers: LocalServers
    store: S3Store
    session: RaySession
    broker: Capabilities


@contextmanager
def on_stage(options: DemoOptions, folder: Path, products: list[DemoProduct], screen: Screen) -> Iterator[Stage]:
    """Servers, settings, bucket, topics, dataset and Ray; all of it gone afterwards."""
    with ExitStack() as stack:
        with screen.step("Starting a Kafka broker and an S3 store") as step:
            servers = LocalServers.start(folder / "servers", kafka=options.kafka, s3=options.s3, say=step.say)
            stack.callback(servers.stop)
        screen.say(servers.describe())
        settings = _settings(options, servers, products)
        store = make_store(settings)
        ensure_topics(settings)
        broker = delivery(settings)
        screen.say(f"Delivery: {broker.describe()}")
        limits = settings.limits.images
        for product in products:
            with screen.step(f"Uploading {product.name} to S3") as step:
                report = Datasets(store).ingest(product.known, product.name, limits=limits, on_image=step.advance)
            good, labelled = len(report.snapshot.good), len(report.snapshot.labelled)
            screen.say(f"{product.name}: {good} good images to fit on, {labelled} labelled ones to judge by")
        with screen.step("Starting Ray"):
            session = stack.enter_context(ray_session(settings))
        yield Stage(settings, servers, store, session, broker)
        with screen.step("Stopping everything"):
            shut_down()
            stack.close()


def _settings(options: DemoOptions, servers: LocalServers, products: list[DemoProduct]) -> Settings:
    import os

    os.environ.update(servers.environment())
    steps = options.steps or (None if options.data else DRAWN_STEPS)
    fit = {"steps": steps} if steps else {}
    return Settings.from_values(
        {
            "stream": {"heat_maps": "always"},
            "serving": {"port": 0, "metrics_port": 0},
            "topics": {"partitions": 4},
            "fit": fit,
            "products": {
                product.name: {
                    "source": str(product.later),
                    "fit": {"ignore": str(product.ignore)} if product.ignore else {},
                }
                for product in products
            },
        },
        where="the demo",
    )
