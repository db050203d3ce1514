"""`linewatch weights`: the teachers' pretrained weights on this machine."""

from pathlib import Path

import click


@click.group()
def weights() -> None:
    """See which teachers' weights are here, and get the others.

    \b
    Example:  linewatch weights list
              linewatch weights fetch wide_resnet50_2
              linewatch weights import resnet18-f37072fd.pth --as resnet18
    """


@weights.command("list")
def list_weights() -> None:
    """List the teachers: where the weights of each lie and whether their sha256 is right, or how to get them."""
    from rich.console import Console
    from rich.table import Table

    from jobs.fitting.weights import survey

    table = Table("backbone", "weights", "where, or how to get them", box=None)
    for one in survey():
        if one.problem:
            table.add_row(one.backbone, "unusable" if one.found else "missing", one.problem)
        elif one.found:
            table.add_row(one.backbone, "own, sha256 ok" if one.found.vouched else "sha256 ok", str(one.found.path))
    Console(width=None if Console().is_terminal else 200, highlight=False).print(table)


@weights.command("fetch")
@click.argument("backbone")
def fetch_weights(backbone: str) -> None:
    """Download the published weights of BACKBONE, where they are not here already.

    They go into the folder that LINEWATCH_WEIGHTS_DIR names, else into torch.hub's cache.

    \b
    Example:  linewatch weights fetch wide_resnet50_2
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from jobs.fitting.weights import fetch

    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(backbone, total=None)
        path = fetch(backbone, lambda done, of: bar.update(task, completed=done, total=of))
    click.echo(f"{backbone}: {path}, sha256 ok")


@weights.command("import")
@click.argument("origin", metavar="FILE|s3://BUCKET/KEY")
@click.option("--as", "backbone", required=True, metavar="BACKBONE", help="Whose weights they are.")
@click.option("--sha256", help="What the file must have.  [default: that of the published weights]")
@click.pass_obj
def import_weights(config: Path | None, origin: str, backbone: str, sha256: str | None) -> None:
    """Take weights from a file or an S3 object: for machines without a network.

    They are checked, the teacher is built from them, and only then do they go into the folder that
    LINEWATCH_WEIGHTS_DIR names, else into torch.hub's cache. With --sha256, weights other than the published ones are
    taken too, and go before those. S3 is that of the settings.

    \b
    Example:  linewatch weights import s3://plant/resnet18-f37072fd.pth --as resnet18
    """
    from jobs.fitting.weights import bring_in
    from jobs.session.connect import load_settings

    path = bring_in(backbone, origin, sha256, lambda: load_settings(config))
    click.echo(f"{backbone}: {path}, sha256 ok")
