"""`linewatch demo` and `doctor`: see it work, and see what this machine can do."""

from pathlib import Path
from typing import Literal, cast

import click

from jobs.cli.outputs import OutputFile, OutputFolder


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A category in MVTec AD layout, or a folder of them.  [default: two products that the demo draws]",
)
@click.option(
    "--out", default=Path("demo-results"), show_default=True, type=OutputFolder(),
    help="Folder for the page, the contact sheet and the figures.",
)  # fmt: skip
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here too.")
@click.option(
    "--fps", default=8.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Of each camera."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Decides what is drawn.")
@click.option(
    "--steps", type=click.IntRange(min=1), help="Training steps.  [default: 100 on drawn images, else the method's own]"
)
@click.option("--no-retrain", is_flag=True, help="Leave the scheduled retraining out.")
@click.option("--keep", is_flag=True, help="Leave everything running at the end, and print the addresses.")
@click.option("--kafka", default="auto", type=click.Choice(["auto", "apache", "tansu"]), envvar="LINEWATCH_LOCAL__KAFKA", show_default=True, help="Which broker.")  # noqa: E501  # fmt: skip
@click.option("--s3", default="auto", type=click.Choice(["auto", "minio", "seaweedfs"]), envvar="LINEWATCH_LOCAL__S3", show_default=True, help="Which store.")  # noqa: E501  # fmt: skip
def demo(
    data: Path | None,
    out: Path,
    json_file: Path | None,
    fps: float,
    seed: int,
    steps: int | None,
    no_retrain: bool,
    keep: bool,
    kafka: str,
    s3: str,
) -> None:
    """Watch the whole of linewatch work on this machine, on real servers.

    Starts a Kafka broker and an S3 store, uploads good images, fits a model per product on Ray, deploys
    replicas on Ray Serve, replays cameras through Kafka, retrains on a schedule, counts every image in and every
    event out, and draws a page and a contact sheet. Nothing stays running afterwards.

    \b
    Example:  linewatch demo --data photos/bottle --json figures.json
    """
    from jobs.demo import DemoOptions, run_demo
    from jobs.session.progress import Screen

    options = DemoOptions(
        data=data,
        out=out,
        json_file=json_file,
        fps=fps,
        seed=seed,
        steps=steps,
        retrain=not no_retrain,
        keep=keep,
        kafka=cast(Literal["auto", "apache", "tansu"], kafka),
        s3=cast(Literal["auto", "minio", "seaweedfs"], s3),
    )
    run_demo(options, Screen())


@click.command()
@click.pass_obj
def doctor(config: Path | None) -> None:
    """Say what is installed, which servers can run here, what is missing, and how to get it."""
    from jobs.line.doctor import report

    missing = 0
    for finding in report(config):
        mark = (
            click.style("✓", fg="green")
            if finding.found
            else click.style("✗", fg="red" if finding.needed else "yellow")
        )
        click.echo(f"{mark} {finding.what:31} {finding.detail}")
        if not finding.found and finding.how_to_get:
            click.echo(f"  {'':31} {finding.how_to_get}")
        missing += finding.needed and not finding.found
    if missing:
        raise click.ClickException(f"{missing} things that linewatch needs are missing")
