"""The demo, step by step: servers, images, models, replicas, cameras, a scheduled retraining, pictures."""

import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs.demo.cameras import retrain_meanwhile, show_images
from jobs.demo.figures import tell_figures
from jobs.demo.ledger import Ledger
from jobs.demo.products import DemoProduct, drawn_products, given_products
from jobs.demo.stage import DemoOptions, Stage, on_stage
from jobs.fitting.datasets import Datasets
from jobs.fitting.fit import fit_products
from jobs.fitting.release import Releases
from jobs.fitting.task import Task
from jobs.line.deploy import deploy
from jobs.session.progress import Screen
from pipeline.errors import LinewatchError


class DemoFailed(LinewatchError):
    pass


def run_demo(options: DemoOptions, screen: Screen) -> dict[str, Any]:
    """Run the demo and write its pictures; returns the figures of ``--json``.

    Raises:
        DemoFailed: an image was lost or doubled. Other errors of linewatch pass through.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linewatch-demo-")))
        products = _products(options, folder, screen)
        stage = stack.enter_context(on_stage(options, folder, products, screen))
        _fit(stage, products, screen)
        _deploy(stage, screen)
        ledger = Ledger(stage.settings, stage.store)
        try:
            with screen.step("Cameras replay through Kafka") as step:
                ids = show_images(stage, products, options, ledger, step)
            retrained = retrain_meanwhile(stage, products[0], ledger, screen) if options.retrain else None
            with screen.step("Settling the books"):
                ledger.settle()
        finally:
            ledger.close()
        figures = tell_figures(stage, products, ids, ledger, retrained, options, screen)
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


def _fit(stage: Stage, products: list[DemoProduct], screen: Screen) -> None:
    datasets, releases = Datasets(stage.store), Releases(stage.settings, stage.store)
    tasks = [Task(product.name, datasets.latest(product.name).digest, None) for product in products]
    with screen.fitting("Fitting on Ray", [task.product for task in tasks]) as on_beat:
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
