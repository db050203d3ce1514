"""Fit products with Ray Train: images from S3, checkpoints to S3, a version in the registry at the end."""

import json
import logging
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch

from jobs.fitting.area import ignored_area
from jobs.fitting.counts import split_items, too_few
from jobs.fitting.datasets import DatasetError, Datasets, Item, Snapshot
from jobs.session.progress import Beat
from jobs.session.ray_session import ray_session
from model import (
    Fit,
    FitOptions,
    Frame,
    IgnoredArea,
    ImageLimits,
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
log = logging.getLogger(__name__)


class FitJobError(LinewatchError):
    pass


@dataclass
class Outcomes:
    """What a run has come to: product to version, and product to the reason why it can't be fitted.

    stumbled: products that ended one attempt by an error that nobody foresaw, which a new process may not meet.
    """

    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stumbled: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One product to fit: plain values, for they travel to the worker.

    ignore: the fields of an IgnoredArea, which ``fit_products`` fills in from the settings.
    """

    product: str
    digest: str
    parent: str | None
    ignore: dict[str, Any] | None = None


def fit_products(
    settings: Settings,
    tasks: Sequence[Task],
    on_beat: Callable[[Beat], None] | None = None,
    run: str | None = None,
    *,
    on_failed: Callable[[str, str], None] | None = None,
) -> dict[str, str]:
    """Fit each product in one Ray Train run and publish its version; returns product to version.

    Short fits share one trainer: starting one costs more than some of the fits. A worker that dies goes on from the
    last checkpoint in S3. A product that can't be fitted does not keep the others from it.

    Args:
        run: name of the run. The same name again resumes what an interrupted run began.
        on_failed: called with (product, reason) for each that can't be fitted; without, they raise at the end.

    Raises:
        FitJobError: the run failed for good, or, without on_failed, a product; the message names the reason.
    """
    store = S3Store(settings.s3)
    ready: list[Task] = []
    failed: dict[str, str] = {}
    for task in tasks:
        try:
            ready.append(_checked(settings, store, task))
        except DatasetError as error:
            failed[task.product] = str(error)
    versions, broken = _run(settings, ready, on_beat, run) if ready else ({}, {})
    failed |= broken
    if failed and not on_failed:
        raise FitJobError("; ".join(f"{product} can't be fitted: {reason}" for product, reason in failed.items()))
    for product, reason in failed.items():
        if on_failed:
            on_failed(product, reason)
    return versions


def planned(settings: Settings, store: ObjectStore, product: str) -> Task:
    """A fit of the product's latest snapshot, with the champion for a parent.

    Raises:
        DatasetError: it has no images, too few of them, they can't be read, or ``fit.ignore`` doesn't fit them.
    """
    snapshot = Datasets(store).latest(product)
    alias = Registry(store).champion_or_none(product)
    return _checked(settings, store, Task(product, snapshot.digest, alias.champion.version if alias else None))


def _checked(settings: Settings, store: ObjectStore, task: Task) -> Task:
    """The task with all that it needs. Raises DatasetError: why its fit would fail, as far as the snapshot tells."""
    reason = too_few(Datasets(store).snapshot(task.product, task.digest))
    if reason:
        raise DatasetError(reason)
    return with_area(settings, store, task)


def _run(
    settings: Settings, tasks: Sequence[Task], on_beat: Callable[[Beat], None] | None, run: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """One run of Ray Train; returns product to version, and product to the reason of its failure."""
    with ray_session(settings):
        import ray
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        name = run or f"fit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        board = ray.remote(num_cpus=0)(Board).remote()
        trainer = TorchTrainer(
            _train,
            train_loop_config={
                "settings": settings.public(),
                "tasks": [vars(task) for task in tasks],
                "board": board,
            },
            scaling_config=ScalingConfig(
                num_workers=1, use_gpu=_gpus() > 0, resources_per_worker={"CPU": settings.training.cpus or 1}
            ),
            run_config=RunConfig(
                name=name,
                storage_path=f"s3://{settings.s3.bucket}/train",
                failure_config=FailureConfig(max_failures=settings.training.attempts),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        watching = _Watcher(board, on_beat) if on_beat else None
        try:
            result = trainer.fit()
        except Exception as error:  # Ray raises its own tree, each with the worker's traceback inside
            raise FitJobError(f"fitting {', '.join(task.product for task in tasks)} failed: {_cause(error)}") from error
        finally:
            if watching:
                watching.close()
        metrics = result.metrics or {}
        return dict(json.loads(metrics["done"])), dict(json.loads(metrics["failed"]))


def with_area(settings: Settings, store: ObjectStore, task: Task) -> Task:
    """The task with the area that its product's images are ignored in, where settings give one.

    Raises:
        DatasetError: see :func:`jobs.fitting.area.ignored_area`.
    """
    options = settings.fit_options(task.product)
    if options.ignore is None or task.ignore is not None:
        return task
    datasets = Datasets(store)
    area = ignored_area(options, datasets, datasets.snapshot(task.product, task.digest), _limits(settings))
    return replace(task, ignore=area.model_dump(mode="json") if area else None)


class Board:
    """An actor that holds the newest beat of a run."""

    def __init__(self) -> None:
        self._beat: tuple[str, str, int, int, float] | None = None

    def write(self, product: str, phase: str, step: int, steps: int, loss: float) -> None:
        self._beat = (product, phase, step, steps, loss)

    def read(self) -> tuple[str, str, int, int, float] | None:
        return self._beat


class _Watcher:
    """Reads the board twice a second and passes new beats on."""

    def __init__(self, board: Any, on_beat: Callable[[Beat], None]) -> None:
        self._board, self._on_beat = board, on_beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fit-progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        import ray
        from ray.exceptions import RayError

        last = None
        while not self._stop.wait(0.5):
            try:
                beat = ray.get(self._board.read.remote(), timeout=5)
            except RayError:
                continue
            if beat and beat != last:
                last = beat
                self._on_beat(Beat(*beat))


# In the worker


def _train(config: dict[str, Any]) -> None:
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
    limits = _limits(settings)
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


def _limits(settings: Settings) -> ImageLimits:
    return ImageLimits(max_bytes=settings.limits.image_bytes, max_pixels=settings.limits.image_pixels)


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


def _gpus() -> float:
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _cause(error: BaseException) -> str:
    """The last line of the innermost error: Ray nests the worker's traceback as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
