"""`linewatch ingest`, `evaluate` and `score`: images in, judgements out, without the stream."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from jobs.cli.outputs import OutputFile, OutputFolder


def _product(_: click.Context, __: click.Parameter, text: str) -> str:
    from pipeline.contracts.names import product_name

    return product_name(text)


product_option = click.option(
    "--product", "-p", required=True, metavar="P", help="Name of the product.", callback=_product
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@product_option
@click.pass_obj
def ingest(config: Path | None, folder: Path, product: str) -> None:
    """Bring the good images of FOLDER to S3, as a new snapshot of product P.

    Images that the product has already are recognised by their content, and copies of a picture by their pixels; with
    another label or mask they are renewed. What is not taken is reported with its reason: files that can't be read,
    links to folders, hidden folders and thumbnails, other suffixes. A folder with OK and NG in it is refused: ingest
    the OK one.

    A folder in MVTec AD layout (train/good, test/<kind>, ground_truth/<kind>) brings labelled images too, which judge
    models and never train them. Masks are named as their image, or with _mask, or are a folder of parts.

    \b
    Example:  linewatch ingest photos/good --product bottle
    """
    from jobs.fitting.counts import too_few
    from jobs.fitting.datasets import Datasets
    from jobs.session.connect import load_settings, make_store
    from jobs.session.progress import Screen

    settings, screen = load_settings(config), Screen()
    limits = settings.limits.images
    datasets = Datasets(make_store(settings, screen.say))
    with screen.step(f"Reading {folder}") as step:
        reading = settings.fit_options(product).reading
        report = datasets.ingest(folder, product, limits=limits, reading=reading, on_image=step.advance)
    for line in report.lines(folder):
        screen.say(line)
    snapshot = report.snapshot
    masks = sum(item.mask_sha256 is not None for item in snapshot.labelled)
    screen.say(
        f"{product}: {report.added} new, {report.known} known, {report.copies} copies, {len(report.refused)} refused; "
        f"snapshot {snapshot.digest[:12]} has {len(snapshot.good)} good and {len(snapshot.labelled)} labelled images"
        + (f", {masks} with a mask" if snapshot.labelled else "")
    )
    short = too_few(snapshot)
    if short:
        screen.say(f"{product} can't be fitted yet: {short}")


@click.command()
@product_option
@click.option("--version", "-v", metavar="V", help="Which version.  [default: the champion]")
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
@click.pass_obj
def evaluate(config: Path | None, product: str, version: str | None, json_file: Path | None) -> None:
    """Judge a version by the product's labelled images.

    AUROC says how well scores order the images; false rejects and escapes, with their 95% intervals, say what the
    threshold makes of them. Labelled images never move the threshold: it comes from held-out good images alone.
    """
    from jobs.fitting.evaluate import evaluate as judge
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from model.measures.proportions import percent_interval
    from pipeline.storage.registry import Registry

    def text(value: object) -> str:
        if isinstance(value, tuple):
            return percent_interval(value)
        return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    settings = load_settings(config)
    store = open_store(settings)
    version = version or Registry(store).champion(product).champion.version
    screen = Screen()
    with screen.step(f"Scoring the labelled images of {product}") as step:
        result = judge(settings, store, product, version, step.advance)
    for name, value in asdict(result).items():
        screen.say(f"{name.replace('_', ' '):28} {text(value)}")
    if json_file:
        json_file.write_text(json.dumps(asdict(result), indent=2) + "\n")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@product_option
@click.option("--version", "-v", metavar="V", help="Which version.  [default: the champion]")
@click.option("--mask", type=OutputFolder(), help="Write each mask as PNG into this folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of text.")
@click.pass_obj
def score(
    config: Path | None, files: tuple[Path, ...], product: str, version: str | None, mask: Path | None, as_json: bool
) -> None:
    """Score image FILES offline, by the very path that the stream takes.

    \b
    Example:  linewatch score photos/today/*.jpg --product bottle --mask masks/
    """
    from jobs.session.connect import load_settings, open_store
    from model import encode_mask_png
    from pipeline.errors import ImageBroken
    from pipeline.stream.inspector import Inspector

    targets = _mask_files(files, mask) if mask else {}
    settings = load_settings(config)
    inspector = Inspector(settings, open_store(settings))
    version = version or inspector.champions.version(product)
    key = f"{product}/{version}"
    broken = 0
    for path in files:
        try:
            frame = inspector.read(path.read_bytes(), key)
        except (ImageBroken, OSError) as error:
            click.echo(f"{path}: {error.strerror if isinstance(error, OSError) else error}", err=True)
            broken += 1
            continue
        scored = inspector.score([frame], [key])[0]
        findings = inspector.cut(scored)
        if path in targets:
            targets[path].parent.mkdir(parents=True, exist_ok=True)
            targets[path].write_bytes(encode_mask_png(findings.mask))
        regions = [region.model_dump() for region in findings.regions]
        if as_json:
            facts = {
                "file": str(path),
                "product": product,
                "model_version": version,
                "score": scored.score,
                "normalised_score": scored.normalised_score,
                "verdict": scored.verdict,
                "regions": regions,
            }
            click.echo(json.dumps(facts))
        else:
            click.echo(f"{path}: {scored.verdict} {scored.normalised_score:.3f} ({len(regions)} regions)")
    if broken:
        raise click.ClickException(f"{broken} of {len(files)} files could not be scored")


def _mask_files(files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the mask of each image goes: to a file of its own, and over none of the images."""
    targets: dict[Path, Path] = {}
    takers: dict[Path, Path] = {}
    for path in dict.fromkeys(files):
        target = folder / f"{path.stem}_mask.png"
        if target in takers:
            raise click.ClickException(
                f"{takers[target]} and {path} would both write {target}: score them one folder at a time"
            )
        takers[target], targets[path] = path, target
    images = {path.absolute() for path in files}
    for target, path in takers.items():
        if target.absolute() in images:
            raise click.ClickException(
                f"the mask of {path} would be written over the image {target}: give another --mask"
            )
    return targets
