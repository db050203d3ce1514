"""What happens in a fit's worker: each product in turn, from its images in S3 to a version in the registry."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import Any

import torch

from jobs.fitting.checkpoints import Checkpoints
from jobs.fitting.counts import split_items
from jobs.fitting.datasets import DatasetError, Datasets, Item, Snapshot
from jobs.fitting.task import Task
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
from model.fitting.kept_frames import KeptFrames
from model.team import ALONE, Team
from pipeline.errors import LinewatchError, StoreUnavailable
from pipeline.settings import Settings
from pipeline.storage.registry import Registry, new_version
from pipeline.storage.store import ObjectStore, S3Store

CHECKPOINT_STEPS = 50
BOARD_STEPS = 5
FETCH_THREADS = 4
NICENESS = 5
"""A fit takes what replicas on its machine leave, and a quarter of a core where they leave none."""
log = logging.getLogger(__name__)


def begin(config: dict[str, Any]) -> None:
    """What a lane runs, in a process of its own."""
    now = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(now, NICENESS))  # a cluster's may be higher, and only root may go back
    train(config)


def train(config: dict[str, Any]) -> None:
    """The loop of a lane's worker: the board's products, one after another; a team's one product."""
    settings = Settings.received(config["settings"])
    torch.set_num_threads(config["threads"])
    team = Team.of_processes()
    desk = Desk(config["board"], config["lane"])
    store = S3Store(settings.s3)
    while task := desk.take():
        try:
            version = _fit_one(settings, store, task, config["run"], desk, team)
        except StoreUnavailable:
            raise  # no fault of the product
        except (ModelError, LinewatchError) as error:
            desk.failed(str(error))
            if not team.alone:
                raise  # or the others would wait for this one
            continue
        except Exception as error:
            if team.alone:  # or it may be another's death
                log.exception("%s can't be fitted", task.product)
                desk.stumbled(f"{type(error).__name__}: {error}")
            raise  # a new process may not meet it
        if team.leads:
            desk.done(version)
        if not team.alone:
            return


class Desk:
    """The board, as one lane sees it."""

    def __init__(self, board: Any, lane: str) -> None:
        self._board, self._lane = board, lane

    def take(self) -> Task | None:
        fields = self._ask(self._board.take.remote(self._lane))
        return Task(**fields) if fields else None

    def holds(self, product: str) -> bool:
        return bool(self._ask(self._board.holds.remote(self._lane, product)))

    def write(self, report: StepReport) -> None:
        """Waits for nobody."""
        self._board.write.remote(self._lane, report.phase, report.step, report.steps, report.loss)

    def done(self, version: str) -> None:
        self._ask(self._board.done.remote(self._lane, version))

    def failed(self, reason: str) -> None:
        self._ask(self._board.failed.remote(self._lane, reason, final=True))

    def stumbled(self, reason: str) -> None:
        self._ask(self._board.stumbled.remote(self._lane, reason))

    def _ask(self, reference: Any) -> Any:
        import ray

        return ray.get(reference)


def _fit_one(settings: Settings, store: ObjectStore, task: Task, run: str, desk: Desk, team: Team) -> str:
    """The version that it becomes; of a team, what the leader says."""
    options = settings.fit_options(task.product)
    checkpoints = Checkpoints(store, run, task, options)
    if version := checkpoints.version():
        return version
    datasets = Datasets(store)
    snapshot = datasets.snapshot(task.product, task.digest)
    ignore = IgnoredArea.model_validate(task.ignore) if task.ignore else None
    train, held_out, items = load_frames(datasets, snapshot, options, settings, ignore, team)
    fit = Fit(task.product, train, held_out, options, device=_device(), ignore=ignore, team=team)
    if state := checkpoints.state():
        fit.restore(state)

    def on_step(report: StepReport) -> None:
        if not team.leads:
            return
        if report.step % BOARD_STEPS == 0 or report.phase != "training":
            desk.write(report)
        if report.phase == "training" and report.step % CHECKPOINT_STEPS == 0 and report.step < report.steps:
            checkpoints.save(fit.state())

    bundle = stamp(fit.run(on_step), task, [item.sha256 for item in items])
    if not team.leads:
        return bundle.manifest.version
    if not desk.holds(task.product):
        raise GivenUp(f"{task.product} was given to another lane, for this one was taken for dead")
    Registry(store).publish(bundle)
    checkpoints.finish(bundle.manifest.version)
    return bundle.manifest.version


class GivenUp(Exception):
    """The board takes this lane for dead."""


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
    team: Team = ALONE,
) -> tuple[Sequence[Frame], Sequence[Frame], list[Item]]:
    """This process's share of the frames to fit on and of those held out, and all held-out items, rank after rank."""
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

    frames = [KeptFrames(fetched(frame, team.share(items), FETCH_THREADS)) for items in (train, held_out)]
    in_order = [item for rank in range(team.size) for item in Team(rank, team.size).share(held_out)]
    return frames[0], frames[1], in_order


def fetched(fetch: Callable[[Item], Frame], items: Sequence[Item], threads: int) -> Iterator[Frame]:
    """Frames in order, of which the next few are fetched and decoded meanwhile: S3 answers late, and in parallel."""
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        coming: deque[Future[Frame]] = deque()
        try:
            for item in items:
                coming.append(pool.submit(fetch, item))
                if len(coming) > 2 * threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
