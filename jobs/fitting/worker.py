"""What happens in Ray Train's worker: each product in turn, from its images in S3 to a version in the registry."""

import json
import logging
import os
import tempfile
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch

from jobs.fitting.counts import split_items
from jobs.fitting.datasets import DatasetError, Datasets, Item, Snapshot
from jobs.fitting.task import Outcomes, Task
from model import (
    Fit,
    FitOptions,
    Frame,
    IgnoredArea,
    ImageRejected,
    ModelBundle,
    ModelError,
    StepReport,
    read_frame,
)
from pipeline.errors import LinewatchError, StoreUnavailable
from pipeline.settings import Settings
from pipeline.storage.registry import Registry, new_version
from pipeline.storage.store import ObjectStore, S3Store

CHECKPOINT_STEPS = 50
BOARD_STEPS = 5
NICENESS = 5
"""A fit takes what replicas on its machine leave, and a quarter of a core where they leave none."""
log = logging.getLogger(__name__)


def begin(config: dict[str, Any]) -> None:
    """What Ray Train calls, in a process of its own."""
    now = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(now, NICENESS))  # a cluster's may be higher, and only root may go back
    train(config)


def train(config: dict[str, Any]) -> None:
    """The worker's loop: each product in turn, resumed from the last checkpoint where there is one."""
    import ray.train

    settings = Settings.received(config["settings"])
    torch.set_num_threads(settings.training.cpus or _default_threads())
    store = S3Store(settings.s3)
    outcomes, state = _resume(ray.train.get_checkpoint())
    for values in config["tasks"]:
        task = Task(**values)
        if task.product in outcomes.done or task.product in outcomes.failed:
            continue
        try:
            outcomes.done[task.product] = _fit_one(settings, store, task, outcomes, state, config["board"])
        except StoreUnavailable:
            raise
        except (ModelError, LinewatchError) as error:  # another attempt would end the same
            outcomes.failed[task.product] = str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if settings.training.attempts and task.product not in outcomes.stumbled:
                outcomes.stumbled[task.product] = reason
                _report(outcomes, None, {"product": task.product})
                raise
            log.exception("%s can't be fitted", task.product)
            outcomes.failed[task.product] = reason
        state = None
        _report(outcomes, None, {"product": task.product})


def _default_threads() -> int:
    """All cores but one.

    OpenMP's threads wait for the slowest of them after every operation, so one that shares its core with a replica or
    a broker holds up all: two threads on two cores, beside one busy process, take many times as long as one thread.
    """
    return max(1, (os.cpu_count() or 1) - 1)


def _fit_one(
    settings: Settings, store: ObjectStore, task: Task, outcomes: Outcomes, state: bytes | None, board: Any
) -> str:
    datasets = Datasets(store)
    snapshot = datasets.snapshot(task.product, task.digest)
    options = settings.fit_options(task.product)
    ignore = IgnoredArea.model_validate(task.ignore) if task.ignore else None
    train, held_out, items = load_frames(datasets, snapshot, options, settings, ignore)
    fit = Fit(task.product, train, held_out, options, device=_device(), ignore=ignore)
    if state:
        fit.restore(state)

    def on_step(report: StepReport) -> None:
        if report.step % BOARD_STEPS == 0 or report.phase != "training":
            board.write.remote(task.product, report.phase, report.step, report.steps, report.loss)
        if report.phase == "training" and report.step % CHECKPOINT_STEPS == 0 and report.step < report.steps:
            _report(outcomes, fit.state(), {"product": task.product, "step": report.step, "loss": report.loss})

    bundle = fit.run(on_step)
    bundle = stamp(bundle, task, [item.sha256 for item in items])
    Registry(store).publish(bundle)
    return bundle.manifest.version


def stamp(bundle: ModelBundle, task: Task, held_out: list[str]) -> ModelBundle:
    """The bundle with its name, its parents and its code version in the manifest."""
    return bundle.stamped(
        version=new_version(datetime.now(UTC), bundle.manifest.weights_sha256),
        parent=task.parent,
        dataset_digest=task.digest,
        code_version=installed_version("linewatch"),
        heldout_sha256=held_out,
    )


def load_frames(
    datasets: Datasets,
    snapshot: Snapshot,
    options: FitOptions,
    settings: Settings,
    ignore: IgnoredArea | None = None,
) -> tuple[list[Frame], list[Frame], list[Item]]:
    """Frames to fit on, frames held out, and the held-out items."""
    limits = settings.limits.images
    train, held_out = split_items(snapshot)

    def frame(item: Item) -> Frame:
        data = datasets.image(snapshot.product, item)
        try:
            read = read_frame(data, options.size, limits, tiled=options.tiles, reading=options.reading)
        except ImageRejected as error:
            raise DatasetError(f"its image {item.name} ({item.sha256[:12]}) can't be used: {error}") from error
        if ignore and (read.width, read.height) != (ignore.width, ignore.height):
            raise DatasetError(
                f"the good image {item.name} has {read.width} x {read.height} pixels, and fit.ignore is for "
                f"{ignore.width} x {ignore.height}; fit on images of one size, or ignore nothing"
            )
        return read

    return [frame(item) for item in train], [frame(item) for item in held_out], held_out


def _report(outcomes: Outcomes, state: bytes | None, metrics: dict[str, Any]) -> None:
    import ray.train
    from ray.train import Checkpoint

    with tempfile.TemporaryDirectory() as folder:
        texts = {name: json.dumps(outcome) for name, outcome in vars(outcomes).items()}
        for name, text in texts.items():
            Path(folder, f"{name}.json").write_text(text)
        if state:
            Path(folder, "state.safetensors").write_bytes(state)
        ray.train.report({**metrics, **texts}, checkpoint=Checkpoint.from_directory(folder))


def _resume(checkpoint: Any) -> tuple[Outcomes, bytes | None]:
    if checkpoint is None:
        return Outcomes(), None
    with checkpoint.as_directory() as folder:
        state = Path(folder, "state.safetensors")
        outcomes = Outcomes(
            **{one.name: json.loads(Path(folder, f"{one.name}.json").read_text()) for one in fields(Outcomes)}
        )
        return outcomes, state.read_bytes() if state.exists() else None


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
