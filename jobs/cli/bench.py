"""`linewatch bench`: measure linewatch itself."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from jobs.cli.outputs import OutputFile


@click.group()
def bench() -> None:
    """Measure linewatch itself, on this machine or on images of yours.

    \b
    Example:  linewatch bench calibration mvtec/ --json calibration.json
              linewatch bench engine --backbone resnet18 --peer anomalib
    """


@bench.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Decides fits and splits.")
@click.option("--splits", default=20, show_default=True, type=click.IntRange(min=1), help="Random splits a category.")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [default: the method's own]")
@click.option("--size", type=click.IntRange(min=64), help="Side in pixels.  [default: the method's own]")
@click.option("--threads", type=click.IntRange(min=1), help="Of torch.  [default: its own choice]")
def calibration(
    folder: Path,
    json_file: Path | None,
    seed: int,
    splits: int,
    steps: int | None,
    size: int | None,
    threads: int | None,
) -> None:
    """Check that stated false-reject rates and their intervals hold, on every category in FOLDER.

    A third of a category's good images is fitted on, all others are scored. Random halves of these scores then place
    a threshold, and the other halves show which rate it really has.
    """
    from jobs.bench.calibration import bench_calibration
    from jobs.session.progress import Screen

    bench_calibration(folder, json_file, Screen(), seed=seed, splits=splits, steps=steps, size=size, threads=threads)


def measured_alike(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `engine` and `train` share."""
    for option in reversed((
        click.option(
            "--backbone", default="efficientnet_lite0", show_default=True,
            help="The teacher; resnet18, resnet50, wide_resnet50_2 and dinov2_vits14 get random weights here.",
        ),
        click.option("--size", default=256, show_default=True, type=click.IntRange(min=64), help="Side in pixels."),
        click.option(
            "--peer", type=click.Choice(["anomalib"]),
            help="Measure this beside linewatch, in an environment of its own (a download of 3 GB, once).",
        ),
        click.option("--threads", type=click.IntRange(min=1), help="For every mode alike.  [default: all cores]"),
        click.option("--device", default="cpu", show_default=True, help="Where linewatch computes: cpu or cuda."),
        click.option("--photos", type=click.Path(path_type=Path), help="Folder of photographs; none draws some."),
        click.option("--json", "json_file", type=OutputFile(), help="Write all here."),
    )):  # fmt: skip
        command = option(command)
    return command


@bench.command()
@measured_alike
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, default=(1, 16), show_default=True,
    help="Images at once; may be repeated.",
)  # fmt: skip
@click.option("--repeats", default=7, show_default=True, type=click.IntRange(min=1), help="Of each mode, interleaved.")
@click.option("--seconds", default=1.0, show_default=True, type=float, help="Of one repeat of one mode.")
def engine(
    backbone: str,
    size: int,
    peer: str | None,
    threads: int | None,
    device: str,
    photos: Path | None,
    json_file: Path | None,
    batches: tuple[int, ...],
    repeats: int,
    seconds: float,
) -> None:
    """Measure how many images a second are scored, and how many a peer scores on the same machine.

    Every mode runs a repeat in turn, over and over; the medians count. From decoded images to anomaly map and score;
    then from JPEG bytes to masks; then with a hundred products in one stream. A ratio above 1 means that linewatch is
    faster; over several batch sizes the smallest is told. Close other programs first: figures of a busy machine are
    worth nothing.

    \b
    Example:  linewatch bench engine --backbone resnet18 --peer anomalib --json engine.json
    """
    from jobs.bench.engine import bench_engine
    from jobs.bench.photographs import read_photographs
    from jobs.session.progress import Screen
    from model.bench.engine import EngineOptions
    from model.bench.runs import ENGINE_IMAGES, EngineRun

    options = EngineOptions(threads or os.cpu_count() or 1, repeats, seconds, device)
    photographs = read_photographs(photos, ENGINE_IMAGES) if photos else None
    run = EngineRun(backbone, size, tuple(dict.fromkeys(batches)), photographs, options)
    bench_engine(run, peer, json_file, _command_line(), Screen())


@bench.command()
@measured_alike
@click.option("--batch", default=16, show_default=True, type=click.IntRange(min=2), help="Images a step.")
@click.option("--steps", default=40, show_default=True, type=click.IntRange(min=1), help="Training steps.")
@click.option("--images", default=128, show_default=True, type=click.IntRange(min=8), help="Training images.")
@click.option(
    "--method", default="plain", show_default=True, help="plain is what the peer does; fusion is our default."
)
@click.option("--corruptions", default=0, show_default=True, type=click.IntRange(0, 32), help="As in a fit; peers: 0.")
def train(
    backbone: str,
    size: int,
    peer: str | None,
    threads: int | None,
    device: str,
    photos: Path | None,
    json_file: Path | None,
    batch: int,
    steps: int,
    images: int,
    method: str,
    corruptions: int,
) -> None:
    """Measure a fit: seconds in all, seconds a step, and the loss that it reaches.

    The peer takes a step after each of ours, on the same images and with the same frozen teacher. Our total includes
    the one pass of the teacher over all images, which later steps do without: the more epochs, the more that saves.

    \b
    Example:  linewatch bench train --backbone resnet18 --peer anomalib --json train.json
    """
    from jobs.bench.photographs import read_photographs
    from jobs.bench.train import bench_train
    from jobs.session.progress import Screen
    from model import FitOptions
    from model.bench.runs import TrainRun

    fit = FitOptions.model_validate(
        {
            "backbone": backbone,
            "size": size,
            "steps": steps,
            "batch": batch,
            "method": method,
            "corruptions": corruptions,
        }
    )
    photographs = read_photographs(photos, images) if photos else None
    run = TrainRun(fit, images, photographs, threads or os.cpu_count() or 1, device)
    bench_train(run, peer, json_file, _command_line(), Screen())


@bench.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--side", default=2048, show_default=True, type=click.IntRange(min=512), help="Of a mosaic in pixels.")
@click.option("--mosaics", default=18, show_default=True, type=click.IntRange(min=3), help="To test on, a third good.")
@click.option("--train", "train", default=20, show_default=True, type=click.IntRange(min=10), help="To learn from.")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [default: the method's own]")
@click.option(
    "--size", default=256, show_default=True, type=click.IntRange(min=64), help="Side of the network's input."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of mosaics, defects and fits.")
@click.option("--json", "json_file", type=OutputFile(), metavar="FILE", help="Figures.")
def tiles(
    folder: Path, side: int, mosaics: int, train: int, steps: int | None, size: int, seed: int, json_file: Path | None
) -> None:
    """Measure what tiles are worth for small defects on large images.

    FOLDER is one category in the layout of MVTec AD. Its good photographs become mosaics, with made-up defects of 20
    pixels on the test ones; the same mosaics are learned and judged as tiles and resized.

    \b
    Example:  linewatch bench tiles photos/road --json tiles.json
    """
    from jobs.bench.tiles import MosaicRun, bench_tiles
    from jobs.session.progress import Screen
    from model import FitOptions

    options = FitOptions.model_validate({"size": size, "seed": seed, **({"steps": steps} if steps else {})})
    bench_tiles(MosaicRun(folder, side, train, mosaics, options), json_file, _command_line(), Screen())


def _command_line() -> str:
    return " ".join(["linewatch", *sys.argv[1:]])


@bench.command()
@click.option("--backbone", default="efficientnet_lite0", show_default=True, help="The teacher.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Of the engine.")
@click.option("--batch", default=16, show_default=True, type=click.IntRange(min=1), help="Most images at once.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1), help="Of each side, in turn.")
@click.option("--seconds", default=10.0, show_default=True, type=float, help="Of one repeat of one side.")
@click.option("--json", "json_file", type=OutputFile(), help="Write all here.")
def stream(backbone: str, threads: int, batch: int, repeats: int, seconds: float, json_file: Path | None) -> None:
    """Measure what the stream costs: from topic to committed event with mask, beside the bare engine.

    Starts a broker and a store of its own. Then the age of events at half of that rate, how 1, 2, 4 and 8 workers with
    a simulated device share the work, and where one process ends.

    \b
    Example:  linewatch bench stream --json stream.json
    """
    from jobs.bench.stream import StreamRun, bench_stream
    from jobs.session.progress import Screen

    run = StreamRun(backbone=backbone, threads=threads, repeats=repeats, seconds=seconds, batch=batch)
    bench_stream(run, json_file, _command_line(), Screen())


@bench.command()
@click.option("--products", default=4, show_default=True, type=click.IntRange(min=0), help="Real fits; 0: none.")
@click.option("--steps", default=300, show_default=True, type=click.IntRange(min=1), help="Of a real fit.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Of the real fits.")
@click.option(
    "--nodes", default=4, show_default=True, type=click.IntRange(min=1), help="Of the cluster for waiting fits."
)
@click.option("--slots", default=4, show_default=True, type=click.IntRange(min=1), help="Fits at once on each node.")
@click.option("--fits", default=96, show_default=True, type=click.IntRange(min=1), help="Fits that only wait.")
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(min=0.1), help="Each waits, in the mean."
)
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
def fleet(json_file: Path | None, **run: Any) -> None:
    """Measure how well many fits at once use a cluster.

    Fits that only wait, on a cluster of this machine with many slots, show what sharing them out costs; real fits of
    drawn products, side by side and one after another, show it on this machine's cores. Efficiency is the work done,
    by the slots and the seconds that it took from the first lane's start to the last fit's end.

    \b
    Example:  linewatch bench fleet --json fleet.json
    """
    from jobs.bench.fleet import Run, bench_fleet
    from jobs.session.progress import Screen

    bench_fleet(Run(**run), json_file, _command_line(), Screen())


@bench.command()
@click.option("--images", default=1000, show_default=True, type=click.IntRange(min=50), help="Drawn JPEGs of 640 px.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Of each way.")
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
def reading(images: int, repeats: int, json_file: Path | None) -> None:
    """Measure how fast a fit's images come from S3: one by one, fetched ahead, or by Ray Data.

    \b
    Example:  linewatch bench reading --json reading.json
    """
    from jobs.bench.reading import bench_reading
    from jobs.session.progress import Screen

    bench_reading(images, repeats, json_file, _command_line(), Screen())


@bench.command()
@click.option("--images", default=20_000, show_default=True, type=click.IntRange(min=400), help="Drawn images.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes that share a fit.")
@click.option("--size", default=128, show_default=True, type=click.IntRange(min=64), help="Side in pixels.")
@click.option("--steps", default=100, show_default=True, type=click.IntRange(min=1), help="Training steps.")
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
def large(images: int, workers: int, size: int, steps: int, json_file: Path | None) -> None:
    """Measure what a fit of very many images holds in memory, beside that of half as many.

    What has no room in memory lies in temporary files under TMPDIR: at 256 px some 16 GB for 20,000 images.

    \b
    Example:  linewatch bench large --json large.json
    """
    from jobs.bench.large import bench_large
    from jobs.session.progress import Screen
    from model import FitOptions

    options = FitOptions(size=size, steps=steps)
    bench_large(images, workers, options, json_file, _command_line(), Screen())


@bench.command("history")
@click.option("--rows", default=5_000_000, show_default=True, type=click.IntRange(min=1000), help="Drawn events.")
@click.option("--url", metavar="URL", help="A database with nothing in it.  [default: an SQLite file that goes again]")
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
def history(rows: int, url: str | None, json_file: Path | None) -> None:
    """Measure how fast the history takes events, and how fast it answers with millions of them, by which plan.

    Five million take some 3 GB under TMPDIR.

    \b
    Example:  linewatch bench history --json history.json
    """
    from tempfile import TemporaryDirectory

    from jobs.bench.history import bench_history
    from jobs.session.progress import Screen

    with TemporaryDirectory() as folder:
        try:
            bench_history(url or f"sqlite:///{folder}/history.db", rows, json_file, _command_line(), Screen())
        except ValueError as error:
            raise click.ClickException(str(error)) from None
