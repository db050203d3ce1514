"""`linewatch datasets`: which images each product has, and mending what can't be read."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.cli.outputs import OutputFile

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.fitting.datasets import Item
    from jobs.fitting.datasets.repair import Kept


@click.group()
def datasets() -> None:
    """See which images each product has, and mend a product whose images can't be read.

    'linewatch ingest' brings images; each time, what a product has then is written as a snapshot that nobody changes,
    and the latest one is what 'linewatch fit' takes.

    \b
    Example:  linewatch datasets list
              linewatch datasets show bottle
              linewatch datasets odd bottle
              linewatch datasets repair bottle
    """


@datasets.command("list")
@click.pass_obj
def list_products(config: Path | None) -> None:
    """List the products that have images, with how many of each sort, and whether they suffice for a fit."""
    from rich.table import Table

    from jobs.fitting.counts import too_few
    from jobs.fitting.datasets import DatasetError, Datasets
    from jobs.session.connect import load_settings, open_store
    from jobs.session.terminal import printable

    kept = Datasets(open_store(load_settings(config)))
    table = Table("product", "good", "labelled", "masks", "copies", "snapshot", "", box=None)
    for product in kept.products():
        try:
            snapshot = kept.latest(product)
        except DatasetError as error:
            table.add_row(product, "", "", "", "", "", printable(str(error)))
            continue
        copies = sum(len(item.copies) for item in snapshot.items)
        masks = sum(item.mask_sha256 is not None for item in snapshot.items)
        counts = (len(snapshot.good), len(snapshot.labelled), masks, copies)
        table.add_row(product, *map(str, counts), snapshot.digest[:12], too_few(snapshot) or "enough for a fit")
    if not table.row_count:
        click.echo("no images of any product yet: 'linewatch ingest FOLDER --product P' brings some")
        return
    _print(table)


@datasets.command()
@click.argument("product")
@click.option("--images", is_flag=True, help="List every image, too.")
@click.pass_obj
def show(config: Path | None, product: str, images: bool) -> None:
    """Show what PRODUCT has: images by kind, masks, copies, and every snapshot with its date.

    Good images are fitted on, but for those held out, which place the threshold; labelled ones judge. Copies are files
    with the very pixels of another one, and count once. Of the snapshots the latest is what a fit takes.
    """
    from jobs.fitting.counts import split_items, too_few
    from jobs.fitting.datasets import Datasets
    from jobs.fitting.datasets.repair import Repairs
    from jobs.session.connect import load_settings, open_store

    store = open_store(load_settings(config))
    snapshot = Datasets(store).latest(product)
    train, held_out = split_items(snapshot)
    kinds: dict[tuple[str, str], list[Item]] = {("good", "fitted on"): train, ("good", "held out"): held_out}
    for item in snapshot.labelled:
        kinds.setdefault((item.kind, "judges"), []).append(item)
    _print(_by_kind(kinds))
    click.echo(f"\n{product}: {too_few(snapshot) or 'enough images for a fit'}\n")
    _print(_snapshots(Repairs(store).snapshots(product), snapshot.digest))
    if images:
        click.echo()
        _print(_images(kinds))


@datasets.command()
@click.argument("product")
@click.pass_obj
def repair(config: Path | None, product: str) -> None:
    """Make the images of PRODUCT usable again where its latest snapshot is not.

    Saves the latest snapshot where it can be read in part (an earlier linewatch may have put a name into it that is no
    UTF-8), or else goes back to the newest snapshot that can be read and was not refused by the gate. Then it reads
    every image and mask and takes those that are gone or damaged off the list. It says what is lost, which another
    ingest brings back, and deletes nothing.
    """
    from jobs.fitting.datasets.repair import Repairs
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen

    screen = Screen()
    repairs = Repairs(open_store(load_settings(config)))
    with screen.step(f"Checking the images of {product}") as step:
        done = repairs.repair(product, step.advance)
    if done.trouble:
        screen.say(f"found: {done.trouble}")
    for line in done.lost:
        screen.say(f"lost: {line}")
    counts = f"{len(done.snapshot.good)} good and {len(done.snapshot.labelled)} labelled images"
    if done.changed:
        screen.say(f"{product}: repaired; the latest snapshot is {done.snapshot.digest[:12]} with {counts}")
    else:
        screen.say(f"{product}: nothing to repair; snapshot {done.snapshot.digest[:12]} with {counts} is whole")


@datasets.command()
@click.argument("product")
@click.option("--most", default=24, show_default=True, type=click.IntRange(min=1), help="How many to show.")
@click.option(
    "--page", type=OutputFile(), metavar="FILE", help="The page with the pictures.  [default: odd-PRODUCT.html]"
)
@click.pass_obj
def odd(config: Path | None, product: str, most: int, page: Path | None) -> None:
    """Show the good images of PRODUCT that are most unlike the others, to look at before a fit learns from them.

    One wrong image among the good ones teaches that its defect is good, or moves the threshold until defects pass. Each
    image is judged by what the other half of the images say; what is odd is marked in a page with pictures. Nothing is
    taken out: 'linewatch datasets leave-out' does that, by a person's word.

    \b
    Example:  linewatch datasets odd bottle
              linewatch datasets leave-out bottle 017.png 203.png
    """
    from rich.table import Table

    from jobs.fitting.datasets import Datasets
    from jobs.fitting.odd import oddest, write_odd
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from jobs.session.terminal import printable
    from model.measures.oddness import ODD

    settings = load_settings(config)
    store, screen = Datasets(open_store(settings)), Screen()
    with screen.step(f"Looking at the good images of {product}") as step:
        options, limits = settings.fit_options(product), settings.limits.images
        found, looked_at = oddest(store, product, options, limits, most, step.advance)
    path = page or Path(f"odd-{product}.html")
    write_odd(path, product, found, looked_at)
    table = Table("image", "sha256", "deviations above the usual", box=None)
    for one in found:
        if one.z >= ODD:
            table.add_row(printable(one.item.name), one.item.sha256[:12], f"{one.z:.1f}")
    if table.row_count:
        _print(table)
    else:
        click.echo(f"none of {looked_at} good images is odd")
    click.echo(f"Pictures: {path}")


@datasets.command("leave-out")
@click.argument("product")
@click.argument("images", nargs=-1, required=True)
@click.pass_obj
def leave_out(config: Path | None, product: str, images: tuple[str, ...]) -> None:
    """Take good IMAGES of PRODUCT out of what the next fit learns from: by name, or the beginning of their sha256.

    A new snapshot is written without them; the files stay in S3, and the versions that were fitted on them stay as
    they are. Another ingest of the same files brings them back.
    """
    from jobs.fitting.datasets import Datasets
    from jobs.fitting.odd import without
    from jobs.session.connect import load_settings, open_store

    snapshot = Datasets(open_store(load_settings(config))).publish(product, lambda latest: without(latest, set(images)))
    click.echo(f"{product}: {len(snapshot.good)} good images are left, in snapshot {snapshot.digest[:12]}")


def _by_kind(kinds: "dict[tuple[str, str], list[Item]]") -> "Table":
    from rich.table import Table

    from jobs.session.terminal import printable

    table = Table("kind", "use", "images", "with mask", "copies", box=None)
    for (kind, use), items in kinds.items():
        masks = "" if kind == "good" else str(sum(item.mask_sha256 is not None for item in items))
        table.add_row(printable(kind), use, str(len(items)), masks, str(sum(len(item.copies) for item in items)))
    return table


def _snapshots(kept: "list[Kept]", latest: str) -> "Table":
    from rich.table import Table

    from jobs.session.terminal import printable

    table = Table("snapshot", "written (UTC)", "good", "labelled", "", box=None)
    for one in kept:
        counts = (str(len(one.snapshot.good)), str(len(one.snapshot.labelled))) if one.snapshot else ("", "")
        state = "latest" if one.digest == latest else "" if one.snapshot else "can't be read"
        refused = f"refused: {'; '.join(one.refused)}" if one.refused else ""
        told = printable(", ".join(filter(None, (state, refused))))
        table.add_row(printable(one.digest[:12]), f"{one.written:%Y-%m-%d %H:%M:%S}", *counts, told)
    return table


def _images(kinds: "dict[tuple[str, str], list[Item]]") -> "Table":
    from rich.table import Table

    from jobs.session.terminal import printable

    table = Table("image", "kind", "use", "mask", "copies", "sha256", box=None)
    for (kind, use), items in kinds.items():
        for item in sorted(items, key=lambda one: one.name):
            mask = "yes" if item.mask_sha256 else ""
            table.add_row(printable(item.name), printable(kind), use, mask, str(len(item.copies)), item.sha256[:12])
    return table


def _print(table: "Table") -> None:
    from rich.console import Console

    for column in table.columns:
        column.overflow = "fold"
    Console(width=None if Console().is_terminal else 200, markup=False, highlight=False).print(table)
