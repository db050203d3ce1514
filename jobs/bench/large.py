"""`linewatch bench large`: what a fit of very many images holds in memory, and what it keeps on disk."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from jobs.drawing.products import draw
from jobs.session.progress import Screen
from model import Fit, FitOptions, Frame
from model.bench.machine import describe_machine
from model.fitting.kept_frames import KeptFrames
from model.measures.splits import HELD_OUT_FRACTION
from model.team import Team

PRODUCT = "twill"
LOOK_S = 0.2


def bench_large(
    images: int, workers: int, options: FitOptions, json_file: Path | None, command: str, screen: Screen
) -> dict[str, Any]:
    """Fit half of the images, then all, each by so many processes; what each held, phase by phase."""
    report: dict[str, Any] = {"command": command, "machine": describe_machine(), "size": options.size}
    for count in (images // 2, images):
        with screen.step(f"Fitting {count} drawn images"), tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(_one, args=(Path(folder), count, workers, options), nprocs=workers)
            report[str(count)] = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
        for rank, held in enumerate(report[str(count)]):
            phases = ", ".join(f"{phase} {megabytes}" for phase, megabytes in held["megabytes"].items())
            screen.say(f"{count} images, worker {rank}: {held['seconds']:.0f} s; at most, in MB: {phases}")
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    return report


def _one(rank: int, folder: Path, images: int, workers: int, options: FitOptions) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers)
    team = Team.of_processes()
    held_out = int(images * HELD_OUT_FRACTION)
    begun = time.monotonic()
    with _watched() as held:

        def drawn(seeds: range) -> KeptFrames:
            return KeptFrames(_frame(seed, options.size) for seed in team.share(seeds))

        held.phase = "frames"
        train, apart = drawn(range(held_out, images)), drawn(range(held_out))
        held.phase = "features"
        fit = Fit(PRODUCT, train, apart, options, team=team)
        bundle = fit.run(lambda report: setattr(held, "phase", report.phase))
    assert bundle.manifest.training.images == images - held_out
    found = {"seconds": time.monotonic() - begun, "megabytes": held.most}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def _frame(seed: int, side: int) -> Frame:
    return Frame(draw(PRODUCT, seed, None, side).image, side, side)


class _Held:
    """most: of each phase the most anonymous memory that was seen, in MB: what no file stands behind."""

    def __init__(self) -> None:
        self.phase = "start"
        self.most: dict[str, int] = {}

    def look(self) -> None:
        memory = psutil.Process().memory_info()
        megabytes = (memory.rss - memory.shared) >> 20
        self.most[self.phase] = max(megabytes, self.most.get(self.phase, 0))


@contextmanager
def _watched() -> Iterator[_Held]:
    held, over = _Held(), threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            held.look()

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join()
