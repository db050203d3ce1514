"""`linewatch replay`: a folder as a camera, or one past event again."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from jobs.cli.outputs import OutputFolder

if TYPE_CHECKING:
    from jobs.past.reproduce import Reproduction
    from jobs.session.progress import Screen

CAMERAS_OWN = ("product", "camera", "fps", "loop")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--product", "-p", metavar="P", help="Name of the product that the camera sees.")
@click.option(
    "--camera", default="/demo/cam1", show_default=True, metavar="C", help="ISA-95 path or name of the camera."
)
@click.option(
    "--fps", default=5.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Images a second."
)
@click.option("--loop", is_flag=True, help="Begin again at the end, until Ctrl-C.")
@click.option("--event", metavar="ID", help="Instead of a folder: score the image of this event again, and compare.")
@click.option(
    "--out", type=OutputFolder(),
    help="With --event: write image, mask and heat map into this folder.",
)  # fmt: skip
@click.pass_context
def replay(
    ctx: click.Context,
    folder: Path | None,
    product: str | None,
    camera: str,
    fps: float,
    loop: bool,
    event: str | None,
    out: Path | None,
) -> None:
    """Play the images of FOLDER as a camera that looks at product P; or score a past event again.

    With --event: the image from exactly the offset that the event names, the version that it names, the same engine.
    Shows score, verdict and mask as they were and as they are now; status 1 where they are not the same. Publishes
    nothing.

    \b
    Example:  linewatch replay photos/today --product bottle --camera /plant1/line3/cam1 --fps 10
              linewatch replay --event 5b48d642c7f2abcbd25666e8bfb6af7e --out evidence/
    """
    config: Path | None = ctx.obj
    if folder is not None and event is not None:
        raise click.UsageError("FOLDER and --event exclude each other: play a folder, or score one event again")
    if event is not None:
        given = [f"--{name}" for name in CAMERAS_OWN if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise click.UsageError(f"{', '.join(given)} can't go with --event: the event names its own")
        _reproduce(config, event, out)
        return
    if folder is None:
        raise click.UsageError("give a FOLDER of images to play, or --event ID to score one event again")
    if product is None:
        raise click.UsageError("Missing option '--product' / '-p': what does the camera of this folder look at?")
    if out is not None:
        raise click.UsageError("--out is for --event: playing a folder writes no files")
    _play(config, folder, product, camera, fps, loop)


def _play(config: Path | None, folder: Path, product: str, camera: str, fps: float, loop: bool) -> None:
    from jobs.fitting.datasets.folders import told
    from jobs.fitting.datasets.layout import survey
    from jobs.line.replay import Shot
    from jobs.line.replay import replay as play
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from pipeline.contracts.names import product_name

    product_name(product)
    settings = load_settings(config)
    found = survey(folder)
    files = [file.path for file in found.images]
    store, screen, stop, count = open_store(settings), Screen(), threading.Event(), 0
    for line in told(found.left_out, folder):
        screen.say(line)
    with screen.step(f"{camera} sees {product}") as step:

        def on_shot(_: Shot) -> None:
            nonlocal count
            count += 1
            step.advance(count, 0 if loop else len(files))

        try:
            play(settings, store, files, product=product, camera=camera, fps=fps, loop=loop, stop=stop, on_shot=on_shot)
        except KeyboardInterrupt:
            stop.set()
    screen.say(f"{count} images sent to {settings.topics.images}")


def _reproduce(config: Path | None, identifier: str, out: Path | None) -> None:
    from jobs.line.deploy import delivery
    from jobs.past.reproduce import checked_id, reproduce
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen

    checked_id(identifier)
    settings = load_settings(config)
    store, screen = open_store(settings), Screen()
    with screen.step(f"Looking for event {identifier}", time_left=True) as step:
        exact = delivery(settings).exact
        found = reproduce(settings, store, identifier, exact=exact, on_progress=step.advance)
    _show(found, screen)
    if out:
        for path in found.write(out):
            screen.say(str(path))
    if not found.same:
        raise click.exceptions.Exit(1)


def _show(found: "Reproduction", screen: "Screen") -> None:
    from rich.table import Table

    event, scored = found.event, found.scored
    source = event.source
    screen.say(f"image    {event.image_id} of {event.camera}, {event.times.captured:%Y-%m-%d %H:%M:%S} UTC")
    screen.say(f"source   {source.topic}/{source.partition}@{source.offset}, sha256 of the image {found.image_sha256}")
    screen.say(f"version  {event.product} {event.model_version}")
    table = Table("", "then", "now", "", box=None)
    same = {True: "same", False: "[red]differs[/]"}
    table.add_row("score", f"{event.score:.6g}", f"{scored.score:.6g}", same[found.score_same])
    table.add_row("normalised score", f"{event.normalised_score:.4f}", f"{scored.normalised_score:.4f}", "")
    table.add_row("threshold", f"{event.threshold:.6g}", f"{scored.threshold:.6g}", "")
    table.add_row("verdict", event.verdict, scored.verdict, same[event.verdict == scored.verdict])
    table.add_row("regions", str(len(event.regions)), str(len(found.findings.regions)), "")
    table.add_row("mask sha256", f"{event.mask.sha256[:16]}…", f"{found.mask_sha256[:16]}…", found.mask_in_words())
    screen.console.print(table, highlight=False)
    screen.say("the same" if found.same else "NOT the same")
