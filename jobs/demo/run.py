"""The demo, step by step: servers, images, models, replicas, cameras, a scheduled retraining, pictures."""

import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from infra.local import LocalServers
from jobs.demo.ledger import Ledger
from jobs.demo.products import DemoProduct, drawn_products, given_products
from jobs.fitting.datasets import Datasets
from jobs.fitting.fit import Task, fit_products
from jobs.fitting.release import Releases
from jobs.fitting.schedule import Outcome, Schedule
from jobs.line.deploy import delivery, deploy, shut_down
from jobs.line.replay import Shot, replay
from jobs.report import Report, write_contact_sheet, write_page
from jobs.session.connect import make_store
from jobs.session.progress import Screen
from jobs.session.ray_session import RaySession, ray_session
from model import ImageLimits
from pipeline.errors import LinewatchError
from pipeline.kafka.capabilities import Capabilities
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.store import S3Store

RETRAIN_FPS = 2.0
RETRAIN_AFTER_S = 10.0
DRAWN_STEPS = 100  # drawn parts are easy, and somebody is watching
NEW_VERSION_IMAGES = 5


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


class DemoFailed(LinewatchError):
    pass


@dataclass
class Stage:
    """What is up while the demo runs."""

    settings: Settings
    servers: LocalServers
    store: S3Store
    session: RaySession
    broker: Capabilities


def run_demo(options: DemoOptions, screen: Screen) -> dict[str, Any]:
    """Run the demo and write its pictures; returns the figures of ``--json``.

    Raises:
        DemoFailed: an image was lost or doubled. Other errors of linewatch pass through.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linewatch-demo-")))
        products = _products(options, folder, screen)
        stage = stack.enter_context(_stage(options, folder, products, screen))
        _fit(stage, products, screen)
        _deploy(stage, screen)
        ledger = Ledger(stage.settings, stage.store)
        try:
            with screen.step("Cameras replay through Kafka") as step:
                ids = _replay(stage, products, options, ledger, step)
            retrained = _retrain(stage, products[0], ledger, screen) if options.retrain else None
            with screen.step("Settling the books"):
                ledger.settle()
        finally:
            ledger.close()
        figures = _finish(stage, products, ids, ledger, retrained, options, screen)
        if options.keep:
            _keep(stage, screen)
    if figures["lost"] or figures["doubled"]:
        raise DemoFailed(
            f"lost {figures['lost']} and doubled {figures['doubled']} images: this is a defect of linewatch"
        )
    return figures


def _products(options: DemoOptions, folder: Path, screen: Screen) -> list[DemoProduct]:
    if options.data:
        return given_products(options.data, folder)
    with screen.step("Drawing two products, good and defective") as step:
        return drawn_products(folder, options.seed, step.advance)


@contextmanager
def _stage(options: DemoOptions, folder: Path, products: list[DemoProduct], screen: Screen) -> Iterator[Stage]:
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
        limits = ImageLimits(max_bytes=settings.limits.image_bytes, max_pixels=settings.limits.image_pixels)
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
            "serving": {"port": 0},
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


def _fit(stage: Stage, products: list[DemoProduct], screen: Screen) -> None:
    datasets, releases = Datasets(stage.store), Releases(stage.settings, stage.store)
    tasks = [Task(product.name, datasets.latest(product.name).digest, None) for product in products]
    with screen.fitting("Fitting with Ray Train", [task.product for task in tasks]) as on_beat:
        versions = fit_products(stage.settings, tasks, on_beat)
    with screen.step("Judging and promoting"):
        verdicts = {name: releases.consider(name, version) for name, version in versions.items()}
    for name, verdict in verdicts.items():
        screen.say(f"{name} {versions[name]}: {verdict.line()}")
        if not verdict.accepted:
            releases.consider(name, versions[name], force=True)
            screen.say(f"{name}: promoted all the same, for the demo has no other")


def _deploy(stage: Stage, screen: Screen) -> None:
    with screen.step("Deploying replicas on Ray Serve") as step:
        deploy(stage.settings, stage.session, exactly_once=stage.broker.aborts_hidden, say=step.say)


def _replay(stage: Stage, products: list[DemoProduct], options: DemoOptions, ledger: Ledger, step: Any) -> list[str]:
    """One camera per product, all at once; returns the ids of the images sent."""
    total = sum(len(product.shots) for product in products)
    failures: list[BaseException] = []

    def camera(product: DemoProduct, number: int) -> None:
        sources = {shot.path: shot for shot in product.shots}
        try:
            replay(
                stage.settings,
                stage.store,
                [shot.path for shot in product.shots],
                product=product.name,
                camera=f"/demo/hall1/line{number}/cam1",
                fps=options.fps,
                on_shot=lambda shot: ledger.send(shot, sources[shot.path], product.name),
            )
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=camera, args=(product, number), name=f"camera-{product.name}")
        for number, product in enumerate(products, 1)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        step.advance(len(ledger.times_seen), total)
        threads[0].join(0.2) if threads[0].is_alive() else threads[-1].join(0.2)
    if failures:
        raise failures[0]
    ids = list(ledger.sent)
    ledger.settle()
    step.advance(len(ledger.times_seen), total)
    return ids


def _retrain(stage: Stage, product: DemoProduct, ledger: Ledger, screen: Screen) -> dict[str, Any]:
    """A scheduled run on new good images while a camera goes on; the new version is then seen in events."""
    due = datetime.now().astimezone() + timedelta(seconds=RETRAIN_AFTER_S)
    values = stage.settings.public()
    values["products"][product.name]["cron"] = f"{due:%S %M %H} * * *"
    settings = Settings.received(values)
    outcomes: list[Outcome] = []
    done, stop = threading.Event(), threading.Event()
    sources = {shot.path: shot for shot in product.shots}

    def finished(outcome: Outcome) -> None:
        outcomes.append(outcome)
        done.set()

    def on_shot(shot: Shot) -> None:
        ledger.send(shot, sources[shot.path], product.name)

    camera = threading.Thread(
        target=lambda: replay(
            settings, stage.store, [s.path for s in product.shots], product=product.name,
            camera="/demo/hall1/line1/cam1", fps=RETRAIN_FPS, loop=True, stop=stop, on_shot=on_shot,
        ),
        name="camera-while-retraining",
    )  # fmt: skip
    screen.say(f"{product.name}: retraining is scheduled for {due:%H:%M:%S}, with new good images; the camera goes on")
    camera.start()
    try:
        with screen.fitting("Scheduled retraining", [product.name]) as on_beat:
            schedule = Schedule(settings, stage.store, on_outcome=finished, on_beat=on_beat)
            schedule.start()
            try:
                done.wait()
            finally:
                schedule.close()
        outcome = outcomes[0]
        screen.say(outcome.line())
        if outcome.status == "promoted":
            with screen.step("Waiting for the new version in events"):
                _see_version(ledger, outcome.version or "")
    finally:
        stop.set()
        camera.join()
    events = [seen.event for seen in ledger.seen.values() if seen.event.model_version == outcome.version]
    return {**asdict(outcome), "events": len(events)}


def _see_version(ledger: Ledger, version: str, timeout_s: float = 60.0) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=timeout_s)
    pause = threading.Event()
    while datetime.now(UTC) < deadline:
        if sum(seen.event.model_version == version for seen in list(ledger.seen.values())) >= NEW_VERSION_IMAGES:
            return
        pause.wait(0.2)


def _finish(
    stage: Stage,
    products: list[DemoProduct],
    ids: list[str],
    ledger: Ledger,
    retrained: dict[str, Any] | None,
    options: DemoOptions,
    screen: Screen,
) -> dict[str, Any]:
    """Figures, table, page and contact sheet."""
    summaries = [ledger.summary(product.name, ids) for product in products]
    notes = [f"Delivery: {stage.broker.describe()}."]
    if retrained:
        notes.append(
            f"Scheduled retraining of {retrained['product']}: {retrained['status']} "
            f"{retrained['version'] or ''}, seen in {retrained['events']} events."
        )
    report = Report(
        title="linewatch demo",
        created=datetime.now(UTC),
        servers=stage.servers.describe(),
        summaries=summaries,
        images=[row for product in products for row in ledger.rows(product.name, ids)],
        lost=ledger.missing,
        doubled=ledger.doubled,
        deadletters=len(ledger.deadletters),
        notes=notes,
    )
    page, sheet = options.out / "report.html", options.out / "contact-sheet.png"
    options.out.mkdir(parents=True, exist_ok=True)
    with screen.step("Drawing the page and the contact sheet"):
        write_page(page, report)
        write_contact_sheet(sheet, report)
    figures = {
        "servers": {
            "kafka": stage.servers.kafka.name,
            "s3": stage.servers.s3.name,
            "delivery": stage.broker.delivery,
        },
        "products": {summary.product: asdict(summary) for summary in summaries},
        "images": len(ledger.sent),
        "events": sum(ledger.times_seen.values()),
        "lost": report.lost,
        "doubled": report.doubled,
        "deadletters": report.deadletters,
        "without_mask": ledger.without_mask(),
        "retraining": retrained,
        "pages": [str(page), str(sheet)],
    }
    screen.summary(report, figures)
    for path in (options.json_file, options.out / "figures.json"):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _keep(stage: Stage, screen: Screen) -> None:
    """Leave everything running until Ctrl-C."""
    from jobs.line.deploy import rest_address

    screen.say(f"REST: {rest_address(stage.session)}   Ray dashboard: {stage.session.dashboard}")
    screen.say(f"Kafka: {stage.servers.bootstrap_servers}   S3: {stage.servers.s3_endpoint}")
    screen.say(f'In another terminal: eval "$(linewatch local env --data-dir {stage.servers.data_dir})"')
    screen.say("Everything keeps running; Ctrl-C ends it")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.say("Stopping")
