"""`linewatch models` and `schedule`: versions, and which of them serves."""

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from model import Calibration


@click.group()
def models() -> None:
    """See which versions there are, and change which one serves.

    \b
    Example:  linewatch models list bottle
              linewatch models rollback bottle
    """


@models.command("list")
@click.argument("product", required=False)
@click.pass_obj
def list_versions(config: Path | None, product: str | None) -> None:
    """List products, or the versions of PRODUCT, newest last; the champion is marked."""
    from rich.console import Console
    from rich.table import Table

    from jobs.session.connect import load_settings, open_store
    from pipeline.errors import RegistryError
    from pipeline.storage.registry import Registry

    registry = Registry(open_store(load_settings(config)))
    unread: list[str] = []
    table = Table("product", "version", "serves", "created", "images", "threshold", "false rejects", "parent", box=None)
    for name in [product] if product else registry.products():
        alias = registry.champion_or_none(name)
        champion = alias.champion.version if alias else None
        for version in registry.versions(name):
            serves = "champion" if version == champion else ""
            try:
                manifest = registry.manifest(name, version)
            except RegistryError as error:  # of a later release, say: the others are shown all the same
                table.add_row(name, version, serves)
                unread.append(str(error))
                continue
            table.add_row(
                name,
                version,
                serves,
                f"{manifest.created:%Y-%m-%d %H:%M}",
                str(manifest.training.images),
                f"{manifest.calibration.threshold:.4g}",
                _stated(manifest.calibration),
                manifest.parent or "",
            )
    if not table.row_count:
        click.echo(f"no versions{f' of {product}' if product else ''} yet: 'linewatch fit PRODUCT' makes one")
        return
    Console(width=None if Console().is_terminal else 200).print(table)
    for reason in unread:
        click.echo(f"! {reason}", err=True)


def _stated(calibration: "Calibration") -> str:
    """The rate aimed at, and its interval where the version states one."""
    from model.measures.proportions import percent, percent_interval

    target, interval = percent(calibration.target_false_reject_rate), calibration.false_reject_interval
    return f"{target} ({percent_interval(interval)})" if interval else target


@models.command("show")
@click.argument("product")
@click.argument("version", required=False)
@click.pass_obj
def show_version(config: Path | None, product: str, version: str | None) -> None:
    """Print the manifest of VERSION, or of the champion, of PRODUCT as JSON.

    Its calibration, and what else the fit found out, follow in words on stderr.
    """
    from jobs.session.connect import load_settings, open_store
    from pipeline.storage.registry import Registry

    registry = Registry(open_store(load_settings(config)))
    version = version or registry.champion(product).champion.version
    manifest = registry.manifest(product, version)
    click.echo(json.dumps(manifest.model_dump(mode="json"), indent=2))
    for line in manifest.describe():
        click.echo(line, err=True)


@models.command()
@click.argument("product")
@click.argument("version")
@click.option("--gate", is_flag=True, help="Only if it passes the gate.")
@click.pass_obj
def promote(config: Path | None, product: str, version: str, gate: bool) -> None:
    """Let VERSION of PRODUCT serve. Replicas load and warm it, then swap; no image is lost."""
    from jobs.fitting.release import Releases
    from jobs.session.connect import load_settings, open_store

    settings = load_settings(config)
    releases = Releases(settings, open_store(settings))
    verdict = releases.consider(product, version, force=not gate)
    if not verdict.accepted:
        raise click.ClickException(f"{product} {version} was {verdict.line()}")
    click.echo(f"{product}: {version} serves")


@models.command()
@click.argument("product")
@click.pass_obj
def rollback(config: Path | None, product: str) -> None:
    """Let the champion before this one serve again."""
    from jobs.fitting.release import Releases
    from jobs.session.connect import load_settings, open_store

    settings = load_settings(config)
    champion = Releases(settings, open_store(settings)).rollback(product)
    click.echo(f"{product}: {champion.version} serves again")


@click.command()
@click.option("--once", metavar="PRODUCT", help="Run this product's retraining now, and end.")
@click.pass_obj
def schedule(config: Path | None, once: str | None) -> None:
    """Retrain products when their cron says so, until Ctrl-C.

    Each due run ingests what is new in the product's source folder, fits, and promotes the result only if it is no
    worse on held-out good images and on labelled ones; otherwise it says why not.

    \b
    In linewatch.yaml:
      products:
        bottle:
          source: /data/bottle/good
          cron: "0 3 * * *"
    """
    from prometheus_client import generate_latest

    from jobs.fitting.schedule import Outcome, Schedule, retrain
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from pipeline.serving.metrics_server import MetricsServer

    settings = load_settings(config)
    store = open_store(settings)
    screen = Screen()
    if once:
        with screen.fitting("Retraining", [once]) as on_beat:
            outcome = retrain(settings, store, once, on_beat)
        screen.say(outcome.line())
        if outcome.status in ("refused", "failed"):
            raise click.exceptions.Exit(1)
        return

    running = Schedule(settings, store, on_outcome=lambda outcome: _say(outcome))

    def _say(outcome: Outcome) -> None:
        screen.say(outcome.line())
        due = running.next_runs().get(outcome.product)
        if due:
            screen.say(f"{outcome.product}: next run {due:%Y-%m-%d %H:%M:%S}")

    if settings.training.metrics_port:
        server = MetricsServer(
            settings.training.metrics_host, settings.training.metrics_port, settings.serving.tls, generate_latest
        )
        screen.say(f"metrics at {server.ready()}/metrics")
    running.start()
    for product, due in running.next_runs().items():
        screen.say(f"{product}: next run {due:%Y-%m-%d %H:%M:%S}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.say("ending; a run in progress is finished first")
    finally:
        running.close()
