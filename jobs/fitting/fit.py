"""Fit products on Ray: images from S3, checkpoints to S3, a version in the registry at the end."""

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from jobs.fitting.area import ignored_area
from jobs.fitting.counts import too_few
from jobs.fitting.datasets import DatasetError, Datasets
from jobs.fitting.fleet import Fleet
from jobs.fitting.task import Task
from jobs.fitting.worker import begin
from jobs.session.progress import Beat
from jobs.session.ray_session import ray_session
from model import FitOptions
from pipeline.errors import LinewatchError
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.storage.store import ObjectStore, S3Store

RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""A run's name becomes part of keys in S3."""


class FitJobError(LinewatchError):
    pass


def fit_products(
    settings: Settings,
    tasks: Sequence[Task],
    on_beat: Callable[[Beat], None] | None = None,
    run: str | None = None,
    *,
    on_failed: Callable[[str, str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Fit products side by side, as many at once as the cluster has room for; returns product to version.

    The longest fits come first. One whose worker dies goes on from its last checkpoint, elsewhere perhaps. A product
    that can't be fitted keeps no other from it.

    Args:
        run: name of the run. The same name again resumes what an interrupted run began.
        on_failed: called with (product, reason) for each that can't be fitted; without, they raise at the end.
        on_note: called with what is worth telling meanwhile: a fit whose worker died.

    Raises:
        FitJobError: the name can't be one of a run, or, without on_failed, a product failed; the message says why.
    """
    if run and not RUN.fullmatch(run):
        raise FitJobError(f"{run!r} can't be the name of a run: letters, digits, '.', '_' and '-', at most 80")
    store = S3Store(settings.s3)
    ready: list[Task] = []
    failed: dict[str, str] = {}
    for task in tasks:
        try:
            ready.append(_checked(settings, store, task))
        except DatasetError as error:
            failed[task.product] = str(error)
    versions, broken = _run(settings, ready, on_beat, run, on_note) if ready else ({}, {})
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
    snapshot = Datasets(store).snapshot(task.product, task.digest)
    reason = too_few(snapshot)
    if reason:
        raise DatasetError(reason)
    options = settings.fit_options(task.product)
    work = _work(options, len(snapshot.good))
    return replace(with_area(settings, store, task), work=work, workers=options.workers)


def _work(options: FitOptions, images: int) -> float:
    """How long a fit takes beside others, in passes of the teacher: a step's image costs one and a half."""
    passes = images * (2 + options.corruptions) + 1.5 * options.steps * options.batch
    return passes * options.size**2 / options.workers


def _run(
    settings: Settings,
    tasks: Sequence[Task],
    on_beat: Callable[[Beat], None] | None,
    run: str | None,
    on_note: Callable[[str], None] | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """One fleet; returns product to version, and product to the reason of its failure."""
    name = run or f"fit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    with ray_session(settings) as session:
        standing = Fleet(settings, session, tasks, name, begin, on_beat, on_note).run()
    return standing.done, standing.failed


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
