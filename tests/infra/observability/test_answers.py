"""A real Prometheus scrapes a real line on two nodes, and every query of dashboards and rules is answered."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from prometheus_client import generate_latest

from infra.local.ports import free_port
from infra.observability.answers import FOLDER, answers, table
from jobs.fitting.schedule import Schedule
from jobs.line.deploy import rest_address
from model import ModelBundle
from pipeline.serving.metrics_server import MetricsServer
from tests.jobs.line.cluster_line import ClusterLine, cluster_line, until
from tests.pipeline.tiny import texture

if TYPE_CHECKING:
    from tests.conftest import Plant

pytestmark = [
    pytest.mark.servers,
    pytest.mark.apache,
    pytest.mark.ray,
    pytest.mark.prometheus,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(1200),
]
SCRAPE_S = 2


@contextmanager
def prometheus(binary: str, rest: str, schedule: str, folder: Path) -> Iterator[str]:
    """On the shipped configuration and rules, but for addresses and a shorter interval."""
    values = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    values["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    values["rule_files"] = [str(FOLDER / "rules" / "*.yaml")]
    line, fits = values["scrape_configs"]
    line["http_sd_configs"][0] |= {"url": f"{rest}/metrics/targets", "refresh_interval": "2s"}
    fits["static_configs"][0]["targets"] = [schedule]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(values))
    port = free_port()
    command = [
        binary, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def asked(address: str, query: str) -> float | None:
    words = urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{words}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return None
    return float(found[0]["value"][1]) if found else None


@contextmanager
def scheduled(line: ClusterLine, store: object) -> Iterator[str]:
    """`linewatch schedule` of a product that has no images: its run fails."""
    values = line.settings.public()
    values["products"] = {"cup": {"cron": "* * * * * *"}}
    server = MetricsServer("127.0.0.1", free_port(), {}, generate_latest)
    running = Schedule(type(line.settings).received(values), store, on_outcome=lambda _: None)  # type: ignore[arg-type]
    running.start()
    try:
        yield server.ready()
    finally:
        running.close()
        server.close()


def test_every_query_is_answered_by_a_prometheus_that_scraped_a_real_line(
    program: Callable[[str], str],
    apache: "Plant",
    tiny_bundle: ModelBundle,
    tmp_path: Path,
    eventually: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    binary = program("prometheus")
    ray_folder = tmp_path / "ray"
    ray_folder.mkdir()
    with cluster_line(apache, tiny_bundle, ray_folder, 2, replicas=2, max_replicas_per_node=1) as line:
        rest = rest_address(line.session)
        with (
            scheduled(line, apache.store(line.settings)) as schedule,
            prometheus(binary, rest, schedule, tmp_path) as address,
        ):
            until(lambda: asked(address, "sum(linewatch_replicas)") == 2, 120, "Prometheus scrapes both nodes")
            begun = time.monotonic()
            score = urllib.request.Request(f"{rest}/v1/products/bottle/score", data=texture(1))
            for _ in range(8):  # while rates have something to rise over
                line.inspect(30, eventually)
                urllib.request.urlopen(score, timeout=60).read()
                line.send_broken()
                time.sleep(2 * SCRAPE_S)
            sent = line.sent
            until(lambda: asked(address, "sum(linewatch_images_total)") == sent, 120, "images judged are images sent")
            until(lambda: bool(asked(address, 'sum(ALERTS{alertname="LinewatchDeadLetters"})')), 60, "an alert fires")
            found = answers(address, time.monotonic() - begun)
            rules = json.load(urllib.request.urlopen(f"{address}/api/v1/rules", timeout=30))["data"]["groups"]
    told = table(found)
    with capsys.disabled():
        print("\n" + told)  # noqa: T201  # the figures of docs/observability.md
    assert all(one.right for one in found), told
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
