"""A chaos run: servers, nodes, replicas and cameras; faults by a plan; and every image counted in the end."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.local import LocalServers
from infra.local.apache_kafka import find_apache
from infra.local.choice import KafkaKind
from infra.local.errors import CannotRun
from infra.local.kafka_jars import ensure_jars
from infra.local.network import Network, find_namespaces
from infra.local.ports import LOOPBACK
from infra.local.program import Missing
from jobs.audit.log import Log, committed_offsets
from jobs.audit.report import Audit
from jobs.audit.run import run_audit
from jobs.audit.window import Window
from jobs.chaos.faults import Faults, Timeline
from jobs.chaos.plan import INTERVALS_S, Fault, Kind, plan
from jobs.chaos.products import draw_images, publish_model
from jobs.chaos.samples import Sample, Samples, draw, longest_standstill_s, memory, most_behind
from jobs.line.deploy import delivery, deploy, shut_down
from jobs.session.cluster import ray_cluster
from jobs.session.connect import make_store
from jobs.session.progress import Screen
from jobs.session.ray_session import ray_session
from pipeline.errors import LinewatchError, ServingError
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings

STILL_S = 15.0
STUCK_S = 300.0


@dataclass(frozen=True)
class ChaosRun:
    """rate: images a second, and ``burst`` times that for the middle half of them. replicas: on so many nodes; more, up
    to max_replicas, when lag grows. hosts: servers and nodes each on a host of their own (infra.local.network).
    intervals_s: see jobs.chaos.plan, 0 for never; and what is done once.
    """

    images: int
    seed: int = 0
    kafka: KafkaKind = "auto"
    brokers: int = 1
    replicas: int = 2
    max_replicas: int = 0
    nodes: int = 2
    hosts: bool = False
    rate: float = 100.0
    burst: float = 1.0
    intervals_s: Mapping[Kind, float] = field(default_factory=lambda: dict(INTERVALS_S))
    once: Sequence[Fault] = ()

    @property
    def replicas_per_node(self) -> int:
        """One more than their share: a node may be away."""
        return -(-max(self.replicas, self.max_replicas) // self.nodes) + 1


def run_chaos(run: ChaosRun, folder: Path, screen: Screen) -> dict[str, Any]:
    """Everything, in a folder that is new: servers' data, `timeline.jsonl`, `samples.jsonl`, `chaos.png`, `audit.json`.

    Returns the figures.

    Raises:
        LinewatchError: the plant could not be set up. What goes wrong later is counted, not raised.
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        network = stack.enter_context(_on_network(run, screen)) if run.hosts else None
        with screen.step("Setting up") as step:
            servers = stack.enter_context(
                LocalServers.start(
                    folder / "servers",
                    kafka=run.kafka,
                    brokers=run.brokers,
                    say=step.say,
                    host=network.address(0) if network else LOOPBACK,
                )
            )
            _environment(servers)
            address, nodes = stack.enter_context(ray_cluster(run.nodes, run.replicas_per_node, network, folder))
            settings = _settings(run, address)
            store = make_store(settings)
            ensure_topics(settings)
            good, sent = draw_images(folder / "images", run.seed)
            publish_model(good, store, step.say)
            session = stack.enter_context(ray_session(settings))
            stack.callback(shut_down)
            exactly_once = delivery(settings).aborts_hidden
            deploy(settings, session, exactly_once=exactly_once, say=step.say)
        begun = time.monotonic()
        with screen.step("Chaos") as step:
            timeline = Timeline(folder / "timeline.jsonl", step.say)
            samples = Samples(folder / "samples.jsonl", session)
            faults = Faults(servers, session, nodes, network, timeline, settings.kafka.session_timeout_ms / 1000)
            with _camera(run, settings, sent[0].parent) as camera:
                again = [plan(run.seed, {kind: every_s}) for kind, every_s in run.intervals_s.items()]
                faults.run([*again, *([one] for one in run.once)], begun)
                try:
                    _until_drained(run, settings, camera, faults, samples, step.advance)
                finally:
                    faults.end()
        took_s = time.monotonic() - begun
        audit = run_audit(settings, Window.between(None, None), screen)
    (folder / "audit.json").write_text(json.dumps(audit.figures(), indent=2) + "\n")
    cluster = f" ({run.brokers} brokers)" if run.brokers > 1 else ""
    title = f"{audit.total('images'):,} images, {servers.kafka.program.title}{cluster}, {servers.s3.program.title}"
    draw(samples.taken, folder / "timeline.jsonl", folder / "chaos.png", title)
    return figures(run, audit, timeline, samples.taken, took_s, servers.describe())


def figures(
    run: ChaosRun, audit: Audit, timeline: Timeline, samples: Sequence[Sample], took_s: float, servers: str
) -> dict[str, Any]:
    """The JSON of a run; `right` is what its exit status says."""
    troubles = audit.troubles
    doubled = troubles["doubled_other"] + (0 if not audit.exactly_once else troubles["doubled_same_id"])
    told: dict[str, Any] = {
        "images": audit.total("images"),
        "events": audit.total("events"),
        "deadletters": sum(audit.deadletters.values()),
        "pending": audit.total("pending"),
        "lost": troubles["lost"],
        "doubled": doubled,
        "doubled_same_id": troubles["doubled_same_id"],
        "kills": {kind: timeline.counts[kind] for kind in INTERVALS_S},
        "longest_gap_s": round(max(audit.longest_gap_s.values(), default=0.0), 2),
    }
    told |= {name: count for name, count in troubles.items() if name.startswith(("masks", "objects", "events"))}
    complete = told["images"] >= run.images and not told["pending"]
    return {
        "right": audit.right and complete,
        **told,
        "verdicts": audit.verdicts,
        "exactly_once": audit.exactly_once,
        "most_replicas": max((len(one.rss_mib) for one in samples), default=0),
        "most_behind": most_behind(samples),
        "longest_standstill_s": longest_standstill_s(samples),
        "memory": memory(samples),
        "seconds": round(took_s, 1),
        "servers": servers,
        "run": asdict(run),
    }


@contextmanager
def _on_network(run: ChaosRun, screen: Screen) -> Iterator[Network]:
    """A network with a host for the servers, where this process is from now on, and one for each node."""
    missing = find_namespaces()
    if missing:
        raise CannotRun(f"{missing.why}. {missing.how_to_get}")
    if run.kafka != "tansu" and not isinstance(find_apache(), Missing):
        ensure_jars(screen.say)  # there is no way to the outside from there
    with Network(1 + run.nodes) as network, network.inside(0):
        yield network


class Camera:
    """The cameras' process, and how many images of it are acknowledged."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.acknowledged = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.acknowledged = int(line)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None


@contextmanager
def _camera(run: ChaosRun, settings: Settings, folder: Path) -> Iterator[Camera]:
    command = [sys.executable, "-m", "jobs.chaos.camera", json.dumps(settings.public()), str(folder)]
    amounts = [str(run.images), str(run.rate), str(run.burst)]
    with subprocess.Popen([*command, *amounts], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Camera(process)
        finally:
            process.kill()


def _until_drained(
    run: ChaosRun, settings: Settings, camera: Camera, faults: Faults, samples: Samples, on_progress: Any
) -> None:
    """Until the cameras are done and nothing was committed for a while, with all of it committed; or all is stuck."""
    done, moved = 0, time.monotonic()
    begun = moved
    while True:
        time.sleep(1.0)
        faults.run_errands()
        now_done = _committed(settings, done)
        if now_done > done or not camera.ended:
            done, moved = now_done, time.monotonic()
        samples.take(time.monotonic() - begun, camera.acknowledged, done)
        on_progress(min(done, run.images), run.images)
        still_s = time.monotonic() - moved
        if camera.ended and camera.acknowledged < run.images:
            raise ServingError(f"the cameras ended after {camera.acknowledged} images; their messages are above")
        if (done >= camera.acknowledged and still_s > STILL_S) or still_s > STUCK_S:
            return


def _committed(settings: Settings, before: int) -> int:
    """Images below the group's offsets; as before while the broker is away."""
    try:
        with Log(settings, settings.topics.images) as log:
            offsets = committed_offsets(settings, settings.topics.images, log.partitions())
            return sum(offset or 0 for offset in offsets.values())
    except LinewatchError:
        return before


def _environment(servers: LocalServers) -> None:
    """What every process of the run inherits."""
    os.environ.update(servers.environment())
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_urlsafe(32)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # as in a session of its own (jobs/session/ray_session.py)


def _settings(run: ChaosRun, ray_address: str) -> Settings:
    return Settings.from_values(
        {
            "topics": {"partitions": max(8, 4 * run.replicas)},
            "stream": {"decode_threads": 1, "batch_images": 32},
            "engine": {"device": "cpu", "threads": 1},
            "serving": {
                "replicas": run.replicas,
                "max_replicas": run.max_replicas or None,
                "drain_s": 10.0,  # a run is shorter than a shift
                "downscale_delay_s": 20.0,
                "max_replicas_per_node": run.replicas_per_node,
                "ray_address": ray_address,
                "port": 0,
                "metrics_port": 0,
                "log_format": "json",
            },
        }
    )
