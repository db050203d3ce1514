"""A line on a Ray cluster of several nodes, one replica a node, and what the metrics of all of them add up to."""

import os
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from jobs.line.deploy import deploy, metrics_addresses, replicas, shut_down
from jobs.session.cluster import Nodes, ray_cluster
from jobs.session.ray_session import RaySession, ray_session
from model import ModelBundle
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.pipeline.real_line import RealLine
from tests.pipeline.tiny import message, publish, texture

if TYPE_CHECKING:
    from tests.conftest import Plant

START_S = 300.0
CAMERAS = 12


class ClusterLine:
    def __init__(
        self, settings: Settings, session: RaySession, nodes: Nodes, stream: RealLine, environment: dict[str, str]
    ) -> None:
        """environment: of the nodes' processes."""
        self.settings, self.session, self.nodes, self._stream = settings, session, nodes, stream
        self._environment = environment
        self.sent, self._broken = 0, 0
        self._pictures = [texture(seed, spot=seed % 4 == 0) for seed in range(8)]

    def send(self, count: int) -> None:
        """From many cameras, so that every partition has images."""
        images = [
            message(f"img-{number}", self._pictures[number % 8], camera=f"/plant/cam{number % CAMERAS}")
            for number in range(self.sent, self.sent + count)
        ]
        self._stream.send(images)
        self.sent += count

    def send_broken(self) -> None:
        """One that becomes a dead letter; it is not among those that are `sent`."""
        self._stream.send([message(f"broken-{time.monotonic_ns()}", b"no image")])
        self._broken += 1

    def add_node(self) -> None:
        before = dict(os.environ)
        os.environ.update(self._environment)  # a test of its own process has no secrets of the plant
        try:
            self.nodes.add()
        finally:
            _put_back(before)

    def committed(self) -> int:
        return self._stream.committed() - self._broken

    def inspect(self, count: int, eventually: Callable[..., None]) -> None:
        self.send(count)
        eventually(lambda: self.committed() >= self.sent, within_s=180, what="all are committed")

    def addresses(self) -> list[str]:
        refused: list[str] = []
        found = metrics_addresses(self.session, refused.append)
        assert refused == []
        return found

    def running(self) -> list[dict[str, object]]:
        return [one for one in replicas(self.session) if one["state"] == "RUNNING"]

    def totals(self) -> Counter[str]:
        """Sum over all nodes, by the name of the sample; verdicts and other labels together."""
        found: Counter[str] = Counter()
        for address in self.addresses():
            found.update(scraped(address))
        return found


def scraped(address: str) -> Counter[str]:
    """Values of one node's samples by name, labels added up; buckets by name and bound."""
    found: Counter[str] = Counter()
    with urllib.request.urlopen(address, timeout=30) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                bound = f" {sample.labels['le']}" if sample.name.endswith("_bucket") else ""
                found[sample.name + bound] += sample.value  # type: ignore[assignment]
    return found


def answers(address: str) -> bool:
    try:
        return bool(scraped(address))
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def cluster_line(
    plant: "Plant", bundle: ModelBundle, folder: Path, nodes: int, *, replicas: int, **serving: object
) -> Iterator[ClusterLine]:
    """Nodes with a processor each, a head without."""
    settings = plant.settings(
        topics={"partitions": 6},
        stream={"batch_images": 4},
        engine={"device": "cpu", "threads": 1, "backend": "torch"},
        serving={"port": 0, "metrics_port": 0, "replicas": replicas, **serving},
    )
    assert settings.s3.access_key is not None
    assert settings.s3.secret_key is not None
    ours = {
        "LINEWATCH_S3__ACCESS_KEY": settings.s3.access_key.get_secret_value(),
        "LINEWATCH_S3__SECRET_KEY": settings.s3.secret_key.get_secret_value(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    before = dict(os.environ)
    with ExitStack() as stack:
        stack.callback(_put_back, before)
        os.environ.update(ours)
        address, workers = stack.enter_context(ray_cluster(nodes, 1, None, folder))
        settings = settings.with_serving({"ray_address": address})
        store = plant.store(settings)
        publish(store, bundle)
        ensure_topics(settings)
        session = stack.enter_context(ray_session(settings))
        stack.callback(shut_down)
        deploy(settings, session, exactly_once=True, timeout_s=START_S)
        yield ClusterLine(settings, session, workers, RealLine(settings, store), ours)


def _put_back(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.5)
