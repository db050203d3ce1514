"""Cameras that replay the demo's images, for a while and beside a scheduled retraining."""

import threading
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.demo.ledger import Ledger
from jobs.demo.products import DemoProduct
from jobs.demo.stage import DemoOptions, Stage
from jobs.fitting.schedule import Outcome, Schedule
from jobs.line.replay import Shot, replay
from jobs.session.progress import Screen
from pipeline.settings import Settings

RETRAIN_FPS = 2.0
RETRAIN_AFTER_S = 10.0
NEW_VERSION_IMAGES = 5


def show_images(
    stage: Stage, products: list[DemoProduct], options: DemoOptions, ledger: Ledger, step: Any
) -> list[str]:
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


def retrain_meanwhile(stage: Stage, product: DemoProduct, ledger: Ledger, screen: Screen) -> dict[str, Any]:
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
