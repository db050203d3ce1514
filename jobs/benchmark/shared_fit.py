"""A fit by several processes of this machine, as the benchmark needs it: without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from model import Fit, FitOptions, Frame, Manifest, ModelBundle
from model.team import Team


def shared_fit(product: str, train: Sequence[Frame], held_out: Sequence[Frame], options: FitOptions) -> ModelBundle:
    """By options.workers processes on the CPU, which share out this one's threads. Raises what one of them raises."""
    threads = max(1, torch.get_num_threads() // options.workers)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (Path(folder), product, train, held_out, options, threads)
        multiprocessing.spawn(_one, args=arguments, nprocs=options.workers)
        manifest = Manifest.model_validate_json(Path(folder, "manifest.json").read_bytes())
        return ModelBundle(manifest, Path(folder, "weights.safetensors").read_bytes())


def _one(
    rank: int,
    folder: Path,
    product: str,
    train: Sequence[Frame],
    held_out: Sequence[Frame],
    options: FitOptions,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=options.workers)
    team = Team.of_processes()
    bundle = Fit(product, team.share(train), team.share(held_out), options, team=team).run()
    if team.leads:
        (folder / "manifest.json").write_text(bundle.manifest.model_dump_json())
        (folder / "weights.safetensors").write_bytes(bundle.weights)
    dist.destroy_process_group()
