"""Many products fitted side by side: lanes over the whole cluster, which share out the board's products.

A lane dies alone. What it held goes back to the board; a new lane begins where there is room, on a node that came
meanwhile, too. A lane of several workers, who share one large fit, is a worker group of Ray Train. One of a single
worker is a Ray task: a trainer for it would be five processes and most of a gigabyte beside it, on the node that the
run was started from, and slow to begin (docs/benchmarks.md).
"""

import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.fitting.board import Board, Standing
from jobs.fitting.capacity import Capacity, capacity
from jobs.fitting.task import Task
from jobs.session.progress import DONE, FAILED, Beat
from jobs.session.ray_session import RaySession, nodes
from pipeline.settings import Settings

Loop = Callable[[dict[str, Any]], None]
"""What a lane's workers run: takes products off config["board"] until there is none."""
POLL_S = 0.5
ALONE = {"max_retries": 0, "max_calls": 1}
"""A process of its own for each lane; the board decides what goes on, and where."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lane:
    """ended: what Ray calls a reference to its end."""

    workers: int
    ended: Any


class Fleet:
    """One run. Needs an initialised Ray."""

    def __init__(
        self,
        settings: Settings,
        session: RaySession,
        tasks: Sequence[Task],
        name: str,
        loop: Loop,
        on_beat: Callable[[Beat], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._settings, self._session, self._name, self._loop = settings, session, name, loop
        self._on_beat = on_beat or (lambda _: None)
        self._on_note = on_note or (lambda line: log.warning("%s", line))
        # On this process's own node, whose end is this process's, too: on another the end of that would end the run.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(Board).options(num_cpus=0, max_restarts=0, scheduling_strategy=here)
        self._board: Any = board.remote([vars(task) for task in tasks], settings.training.attempts)
        self._lanes: dict[str, Lane] = {}
        self._numbers = itertools.count()
        self._beats: dict[str, Beat] = {}
        self._ended: set[str] = set()

    def run(self) -> Standing:
        """Until each product is done or failed. Raises what Ray raises where the cluster is gone."""
        import ray

        try:
            while True:
                self._bury()
                standing: Standing = ray.get(self._board.standing.remote())
                self._tell(standing)
                if standing.over:
                    return standing
                self._begin_lanes(standing)
                time.sleep(POLL_S)
        finally:
            for lane in self._lanes.values():
                ray.cancel(lane.ended)  # one that waits for a place would wait for nothing

    def _bury(self) -> None:
        """Forget lanes that have ended. What one that died had goes back to the board."""
        import ray

        for name, lane in list(self._lanes.items()):
            if not ray.wait([lane.ended], timeout=0)[0]:
                continue
            del self._lanes[name]
            try:
                ray.get(lane.ended)
            except Exception as error:  # Ray raises its own tree, each with the worker's traceback inside
                ray.get(self._board.failed.remote(name, cause(error), final=False))

    def _tell(self, standing: Standing) -> None:
        for line in standing.told:
            self._on_note(line)
        for values in standing.beats:
            beat = Beat(*values)
            if self._beats.get(beat.product) != beat:
                self._beats[beat.product] = beat
                self._on_beat(beat)
        for product in {*standing.done, *standing.failed} - self._ended:
            self._ended.add(product)
            self._on_beat(Beat(product, DONE if product in standing.done else FAILED, 1, 1, 0.0))

    def _begin_lanes(self, standing: Standing) -> None:
        room = capacity(nodes(self._session), self._settings.training)
        most = self._settings.training.fits or room.slots
        free = most - sum(lane.workers for lane in self._lanes.values())
        starting = sum(lane.workers == 1 and name not in standing.held for name, lane in self._lanes.items())
        coming = sum(workers for _, workers in standing.waiting if workers <= most) - starting
        threads = room.threads(self._settings.training, min(most, most - free + coming))
        wanted = 0
        for product, workers in standing.waiting:
            if workers == 1:
                wanted += 1
            elif workers > most:
                self._board.refuse.remote(product, _too_many(workers, most))
            elif workers > free - max(0, wanted - starting):
                break  # it waits for its places, and those that come after it wait, too
            else:
                self._begin(workers, threads, room, product)
                free -= workers
        for _ in range(max(0, min(wanted - starting, free))):
            self._begin(1, threads, room)

    def _begin(self, workers: int, threads: int, room: Capacity, product: str | None = None) -> None:
        """threads: of each worker. product: the one that a lane of several workers is for."""
        import ray

        lane = f"{self._name}-{next(self._numbers)}"
        if product is not None:
            self._board.reserve.remote(lane, product)
        config = {
            "settings": self._settings.public(),
            "board": self._board,
            "lane": lane,
            "run": self._name,
            "threads": threads,
        }
        # One CPU, as a slot is counted, and not its threads: beside replicas it would wait for ever for so many.
        gpus, cpus = (self._settings.training.gpus, 1) if room.gpu else (0.0, self._settings.training.cpus or 1)
        remote: Any = ray.remote
        if workers == 1:
            place = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
            ended = remote(**ALONE, **place)(self._loop).remote(config)
        else:
            each = {"CPU": cpus, "GPU": gpus} if room.gpu else {"CPU": cpus}
            ended = remote(**ALONE, num_cpus=0)(team).remote(self._loop, config, workers, each)
        self._lanes[lane] = Lane(workers, ended)


def team(loop: Loop, config: dict[str, Any], workers: int, resources: dict[str, float]) -> None:
    """One worker group of Ray Train; raises what it died of."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    with tempfile.TemporaryDirectory(prefix="linewatch-fit-") as folder:
        TorchTrainer(
            loop,
            train_loop_config=config,
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if "GPU" in resources else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=config["lane"],
                storage_path=folder,  # where Ray keeps its own notes: checkpoints go to S3
                failure_config=FailureConfig(max_failures=0),  # the board decides what goes on, and where
            ),
        ).fit()


def _too_many(workers: int, most: int) -> str:
    return (
        f"it asks for {workers} workers (fit.workers), and there is room for {most}: lower it, add nodes, or raise "
        "training.fits where an autoscaler adds them"
    )


def cause(error: BaseException) -> str:
    """The last line of the innermost error: Ray nests the worker's traceback as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
