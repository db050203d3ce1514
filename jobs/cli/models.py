"""`linewatch fit`, `models` and `schedule`: versions, and which of them serves."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jobs.fitting.task import Task
    from jobs.session.progress import Screen
    from model import Calibration
    from pipeline.settings import Settings


@click.command()
@click.argument("products", nargs=-1, required=True, metavar="PRODUCT...")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [default: the fit.steps setting]")
@click.option("--seed", type=click.IntRange(min=0), help="Decides initial weights and batch order.")
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), help="int8 scores faster on a CPU.  [default: fit.precision]"
)
@click.option("--tiles/--no-tiles", default=None, help="Score tiles at full resolution: small defects on large images.")
@click.option(
    "--ignore",
    metavar="MASK",
    help="Image of the images' size, not 0 where they don't count: a background.  [default: fit.ignore]",
)
@click.option("--no-promote", is_flag=True, help="Publish the version, and let the champion be.")
@click.option("--force", is_flag=True, help="Promote without asking the gate.")
@click.option("--run", metavar="NAME", help="Name of the run; the same name again resumes an interrupted one.")
@click.pass_obj
def fit(
    config: Path | None,
    products: tuple[str, ...],
    steps: int | None,
    seed: int | None,
    precision: str | None,
    tiles: bool | None,
    ignore: str | None,
    no_promote: bool,
    force: bool,
    run: str | None,
) -> None:
    """Fit a model for each PRODUCT from its good images, and promote it if the gate lets it pass.

    Ray Train reads the product's latest snapshot from S3, checkpoints to S3, and writes an immutable version to the
    registry. A version that the gate refuses stays there; promote it by hand if you know better. A product that can't
    be fitted is named with the reason, before Ray starts where its images tell; the others are fitted and promoted.

    \b
    Example:  linewatch fit bottle cap
    """
    from jobs.fitting.fit import planned
    from jobs.fitting.release import Releases
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from jobs.session.terminal import printable
    from model import IgnoredArea

    settings = load_settings(config)
    given = {"steps": steps, "seed": seed, "precision": precision, "tiles": tiles, "ignore": ignore}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = settings.with_fit(chosen)
    store = open_store(settings)
    releases, screen, failed = Releases(settings, store), Screen(), list[str]()

    def fail(what: str, reason: str) -> None:
        failed.append(what)
        click.echo(f"Error: {what}: {printable(reason)}", err=True)

    def told(product: str, reason: str) -> None:
        fail(f"{product} can't be fitted", reason)

    tasks = []
    for product in dict.fromkeys(products):
        with _alone(f"{product} can't be fitted", fail):
            tasks.append(planned(settings, store, product))
    for task in tasks:
        if task.ignore:
            screen.say(f"{task.product}: {IgnoredArea.model_validate(task.ignore).describe()}")
    versions = _fitted(settings, tasks, run, screen, told) if tasks else {}
    refused = 0
    for product, version in versions.items():
        manifest = releases.registry.manifest(product, version)
        for line in manifest.describe():
            screen.say(f"{product} {version}: {line}")
        if highest := releases.highest_held_out(manifest):
            screen.say(f"{product} {version}: {highest}")
        if no_promote:
            screen.say(f"{product} {version}: in the registry, not promoted")
            continue
        with _alone(f"{product} {version} was not promoted", fail):
            verdict = releases.consider(product, version, force=force)
            screen.say(f"{product} {version}: {'promoted' if verdict.accepted else verdict.line()}")
            refused += not verdict.accepted
    if refused:
        raise click.ClickException(
            f"{refused} of {len(versions)} versions were refused: 'linewatch models promote' overrules"
        )
    if failed:
        raise click.exceptions.Exit(1)


def _fitted(
    settings: "Settings", tasks: "list[Task]", run: str | None, screen: "Screen", told: Callable[[str, str], None]
) -> dict[str, str]:
    """Product to version, of those that could be fitted; of each other one ``told`` hears why not."""
    from jobs.fitting.fit import fit_products
    from jobs.session.ray_session import ray_session

    with screen.step("Starting Ray"):
        session = ray_session(settings)
        session.__enter__()
    try:
        with screen.fitting("Fitting", [task.product for task in tasks]) as on_beat:
            return fit_products(settings, tasks, on_beat, run, on_failed=told)
    finally:
        session.__exit__(None, None, None)


@contextmanager
def _alone(what: str, fail: Callable[[str, str], None]) -> Iterator[None]:
    """What is wrong with one product does not keep the others from being fitted and promoted."""
    from model import ModelError
    from pipeline.errors import LinewatchError, StoreUnavailable

    try:
        yield
    except StoreUnavailable:
        raise
    except (LinewatchError, ModelError) as error:
        fail(what, str(error))


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
    from pipeline.storage.registry import Registry

    registry = Registry(open_store(load_settings(config)))
    table = Table("product", "version", "serves", "created", "images", "threshold", "false rejects", "parent", box=None)
    for name in [product] if product else registry.products():
        alias = registry.champion_or_none(name)
        champion = alias.champion.version if alias else None
        for version in registry.versions(name):
            manifest = registry.manifest(name, version)
            table.add_row(
                name,
                version,
                "champion" if version == champion else "",
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
    from jobs.fitting.schedule import Outcome, Schedule, retrain
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen

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

    running.start()
    for product, due in running.next_runs().items():
        screen.say(f"{product}: next run {due:%Y-%m-%d %H:%M:%S}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.say("ending; a run in progress is finished first")
    finally:
        running.close()
