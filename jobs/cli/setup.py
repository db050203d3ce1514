"""`linewatch setup`, `config` and `schemas`: what must be there before anything else."""

from pathlib import Path

import click

from jobs.cli.outputs import OutputFolder


@click.command()
@click.pass_obj
def setup(config: Path | None) -> None:
    """Make the bucket and the topics, and find out what the broker can do.

    Safe to run again: what is there already is left as it is. Topics that can't take what settings ask of them are
    refused, or warned of where the line only works in another way for it.
    """
    from jobs.session.connect import load_settings, make_store
    from pipeline.kafka.capabilities import probe
    from pipeline.kafka.topics import ensure_topics
    from pipeline.kafka.topics_fit import fitting

    settings = load_settings(config)
    make_store(settings)
    click.echo(f"bucket   {settings.s3.bucket} at {settings.s3.endpoint}")
    made = ensure_topics(settings)
    click.echo(f"topics   {', '.join(made) if made else 'all there already'}")
    for warning in fitting(settings):
        click.echo(f"warning  {warning}")
    click.echo(f"delivery {probe(settings).describe()}")


@click.group()
def config() -> None:
    """Look at the settings that are in force."""


@config.command("show")
@click.pass_obj
def show(file: Path | None) -> None:
    """Print every setting as YAML, secrets masked.

    Defaults < the settings file < LINEWATCH_* variables, such as LINEWATCH_KAFKA__BOOTSTRAP_SERVERS.
    """
    import yaml

    from jobs.session.connect import load_settings

    click.echo(yaml.safe_dump(load_settings(file).masked(), sort_keys=False).rstrip())


@click.command()
@click.argument("folder", type=OutputFolder(), default=Path("docs/schemas"))
def schemas(folder: Path) -> None:
    """Export the JSON Schemas of events, claim checks and releases to FOLDER."""
    from pipeline.contracts.schemas import export

    for path in export(folder):
        click.echo(path)
