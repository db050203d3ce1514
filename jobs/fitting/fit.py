"""Fit products with Ray Train: images from S3, checkpoints to S3, a version in the registry at the end."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from jobs.fitting.area import ignored_area
from jobs.fitting.board import Board, Watcher
from jobs.fitting.counts import too_few
from jobs.fitting.datasets import DatasetError, Datasets
from jobs.fitting.task import Task
from jobs.fitting.worker import begin
from jobs.session.progress import Beat
from jobs.session.ray_session import ray_session
from pipeline.errors import LinewatchError
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.storage.store import ObjectStore, S3Store


class FitJobError(LinewatchError):
    pass


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
            begin,
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
        watching = Watcher(board, on_beat) if on_beat else None
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
    area = ignored_area(options, datasets, datasets.snapshot(task.product, task.digest), settings.limits.images)
    return replace(task, ignore=area.model_dump(mode="json") if area else None)


def _gpus() -> float:
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _cause(error: BaseException) -> str:
    """The last line of the innermost error: Ray nests the worker's traceback as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
