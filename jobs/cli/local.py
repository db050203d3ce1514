"""`linewatch local`: Kafka brokers and an S3 store on this machine, without Docker."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from infra.local import prometheus
from infra.local.build_minio import USUAL_S, build_minio
from infra.local.choice import KafkaKind, S3Kind
from infra.local.errors import LocalServersError
from infra.local.minio_server import cached_minio
from infra.local.servers import LocalServers, delete_data, recorded, stop_recorded

Command = Callable[..., None]


def plain_errors(command: Command) -> Command:
    """The servers' own errors are for people: one message and exit status 1, no traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except LocalServersError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".linewatch"),
    envvar="LINEWATCH_LOCAL__DATA_DIR",
    show_default=True,
    show_envvar=True,
    help="Where the servers keep their data, ports, credentials and logs.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def local() -> None:
    """Run Kafka and S3 on this machine, without Docker.

    The servers listen on 127.0.0.1 only and keep their data between runs.

    \b
    Example:
      linewatch local up
      eval "$(linewatch local env)"
      linewatch local down
    """


@local.command()
@click.option(
    "--kafka",
    type=click.Choice(["auto", "apache", "tansu"]),
    default="auto",
    envvar="LINEWATCH_LOCAL__KAFKA",
    show_default=True,
    show_envvar=True,
    help="auto: Apache Kafka where Java 17 and Maven are found, else Tansu.",
)
@click.option(
    "--s3",
    type=click.Choice(["auto", "minio", "seaweedfs"]),
    default="auto",
    envvar="LINEWATCH_LOCAL__S3",
    show_default=True,
    show_envvar=True,
    help="auto: MinIO where its server binary is found, else SeaweedFS.",
)
@click.option(
    "--brokers",
    type=click.Choice(["1", "3"]),
    envvar="LINEWATCH_LOCAL__BROKERS",
    show_envvar=True,
    help="3: a cluster of Apache Kafka that outlives any one broker. Left out: as many as the data is in; 1 at first.",
)
@data_dir_option
@plain_errors
def up(kafka: str, s3: str, brokers: str | None, data_dir: Path) -> None:
    """Start the servers in the background.

    Returns once all do their work. Where they run already, says so and leaves them alone; of three brokers, starts
    one that ended.

    \b
    Example:
      linewatch local up --s3 seaweedfs
      linewatch local up --brokers 3
    """
    console = Console(highlight=False, soft_wrap=True)
    running = LocalServers.attach(data_dir)
    if running is not None:
        _refuse_to_swap(running, kafka, s3, brokers, data_dir)
        if not running.complete:
            running.start_missing(lambda message: console.print(message, markup=False))
        console.print(f"Running already. {running.describe()}", markup=False)
        return
    with console.status("Looking at what can run here"):
        servers = LocalServers.start(
            data_dir,
            kafka=cast(KafkaKind, kafka),
            s3=cast(S3Kind, s3),
            brokers=int(brokers) if brokers else None,
            detach=True,
            say=lambda message: console.print(message, markup=False),
        )
    console.print(servers.describe(), markup=False)
    console.print(
        f'Point your shell at them with: eval "$(linewatch local env{_data_dir_words(data_dir)})"', markup=False
    )


@local.command()
@data_dir_option
@plain_errors
def down(data_dir: Path) -> None:
    """Stop the servers; their data stays.

    \b
    Example:
      linewatch local down
    """
    click.echo("Stopped." if stop_recorded(data_dir) else f"Nothing was running in {data_dir}.")


@local.command()
@data_dir_option
@plain_errors
def status(data_dir: Path) -> None:
    """Show what runs. Exit status 1 unless all of the servers do.

    \b
    Example:
      linewatch local status || linewatch local up
    """
    found = recorded(data_dir)
    if found is None:
        raise click.ClickException(f"No servers have been started in {data_dir}. Start them with `linewatch local up`.")
    table = Table(box=None, pad_edge=False)
    for heading in ("", "state", "address", "server"):
        table.add_column(heading, no_wrap=heading != "server")
    for server in found.members:
        label = {"kafka": "Kafka", "s3": "S3"}[server.program.role]
        state = f"[green]running[/] (process {server.pid})" if server.alive else "[red]stopped[/]"
        table.add_row(label, state, server.endpoint, Text(f"{server.name} ({server.why})"))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Logs: {found.kafka.log.parent}", markup=False, soft_wrap=True)
    if not found.complete:
        raise SystemExit(1)


@local.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
@data_dir_option
@plain_errors
def reset(yes: bool, data_dir: Path) -> None:
    """Stop the servers and delete their data, ports and credentials.

    Fetched and built programs stay in the cache.

    \b
    Example:
      linewatch local reset --yes
    """
    if not data_dir.exists():
        click.echo(f"There is nothing in {data_dir}.")
        return
    if not yes:
        click.confirm(f"Stop the servers and delete all messages and objects in {data_dir}?", abort=True)
    delete_data(data_dir)
    click.echo(f"Deleted the servers' data in {data_dir}.")


@local.command()
@data_dir_option
@plain_errors
def env(data_dir: Path) -> None:
    """Print the settings that point linewatch at the running servers.

    The output holds the secret key: don't paste it anywhere.

    \b
    Example:
      eval "$(linewatch local env)"
    """
    servers = LocalServers.attach(data_dir)
    if servers is None:
        raise click.ClickException(f"No servers run in {data_dir}. Start them with `linewatch local up`.")
    click.echo("The lines below hold the secret key of the local S3 store: don't share them.", err=True)
    for name, value in servers.environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")


@local.command("build-minio")
@plain_errors
def build_minio_command() -> None:
    """Build the MinIO server with Go (about 6 minutes, once).

    Afterwards `linewatch local up` prefers it to SeaweedFS for new data folders.

    \b
    Example:
      linewatch local build-minio
    """
    if cached_minio().exists():
        click.echo(f"MinIO is built already: {cached_minio()}")
        return
    click.echo(f"Built {_building('MinIO', USUAL_S, build_minio)}")


@local.command("build-prometheus")
@plain_errors
def build_prometheus_command() -> None:
    """Build Prometheus and promtool with Go (about 5 minutes, once).

    They try the rules, the dashboards and the metrics of this checkout; a line does not need them.

    \b
    Example:
      linewatch local build-prometheus
    """
    click.echo(f"Built {_building('Prometheus', prometheus.USUAL_S, prometheus.build_prometheus)}")


def _building(name: str, usual_s: float, build: Callable[[Callable[[float], None]], Path]) -> Path:
    columns = (
        TextColumn(f"Building {name} with Go"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[hint]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0, hint=f"usually about {usual_s // 60 + 1:.0f} minutes on two cores")
        built = build(lambda share: bar.update(task, completed=share))
        bar.update(task, completed=1.0, hint="done")
    return built


def _refuse_to_swap(running: LocalServers, kafka: str, s3: str, brokers: str | None, data_dir: Path) -> None:
    count = str(len(running.brokers))
    for name, now, wanted in (
        (running.kafka.name, running.kafka.program.kind, kafka),
        (running.s3.name, running.s3.program.kind, s3),
        (f"{running.kafka.name} as `--brokers {count}`", count, brokers or "auto"),
    ):
        if wanted not in ("auto", now):
            command = f"linewatch local down{_data_dir_words(data_dir)}"
            raise click.ClickException(f"{name} runs in {data_dir}, not {wanted}: first stop it with `{command}`.")


def _data_dir_words(data_dir: Path) -> str:
    """What must be added to a command that is shown, so that it finds the same folder."""
    return "" if data_dir == Path(".linewatch") else f" --data-dir {shlex.quote(str(data_dir))}"
