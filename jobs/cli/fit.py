"""`linewatch fit`: from good images to versions, and to champions where the gate lets them pass."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jobs.fitting.release import Releases
    from jobs.fitting.task import Task
    from jobs.session.progress import Screen
    from pipeline.settings import Settings
    from pipeline.storage.store import ObjectStore


@click.command()
@click.argument("products", nargs=-1, metavar="[PRODUCT...]")
@click.option("--all", "everything", is_flag=True, help="Every product that has images.")
@click.option("--if-new", is_flag=True, help="Leave out products whose images a version was fitted from already.")
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
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that share the fit of each product: for very many images.  [default: fit.workers]",
)
@click.option("--no-promote", is_flag=True, help="Publish the version, and let the champion be.")
@click.option("--force", is_flag=True, help="Promote without asking the gate.")
@click.option("--run", metavar="NAME", help="Name of the run; the same name again resumes an interrupted one.")
@click.pass_obj
def fit(
    config: Path | None,
    products: tuple[str, ...],
    everything: bool,
    if_new: bool,
    no_promote: bool,
    force: bool,
    run: str | None,
    **given: Any,
) -> None:
    """Fit a model for each PRODUCT from its good images, and promote it if the gate lets it pass.

    As many at once as this machine, or the Ray cluster of serving.ray_address, has room for, the longest first. A fit
    reads the product's latest snapshot from S3, checkpoints to S3, and writes an immutable version to the registry;
    one whose node dies goes on from its last checkpoint elsewhere. A version that the gate refuses stays in the
    registry; promote it by hand if you know better. A product that can't be fitted is named with the reason, before Ray
    starts where its images tell; the others are fitted and promoted.

    \b
    Example:  linewatch fit bottle cap
              linewatch fit --all --if-new
    """
    from jobs.fitting.datasets import Datasets
    from jobs.fitting.release import Releases
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen

    if bool(products) == everything:
        raise click.UsageError("name products, or --all" + (", not both" if products else ""))
    settings = load_settings(config).with_fit({name: value for name, value in given.items() if value is not None})
    store = open_store(settings)
    if everything and not (products := tuple(Datasets(store).products())):
        raise click.ClickException("no product has images yet: 'linewatch ingest FOLDER --product NAME' brings some")
    fits = _Fits(settings, store, Releases(settings, store), Screen())
    versions = fits.fitted(fits.planned(products, if_new), run)
    refused = sum(not fits.released(product, version, no_promote, force) for product, version in versions.items())
    if refused:
        raise click.ClickException(
            f"{refused} of {len(versions)} versions were refused: 'linewatch models promote' overrules"
        )
    if fits.failed:
        raise click.exceptions.Exit(1)


@dataclass
class _Fits:
    """What one call fits. failed: what could not be done, told already."""

    settings: "Settings"
    store: "ObjectStore"
    releases: "Releases"
    screen: "Screen"
    failed: list[str] = field(default_factory=list)

    def planned(self, products: tuple[str, ...], if_new: bool) -> "list[Task]":
        from jobs.fitting.fit import planned
        from model import IgnoredArea

        tasks = []
        for product in dict.fromkeys(products):
            with self._alone(f"{product} can't be fitted"):
                task = planned(self.settings, self.store, product)
                if if_new and (version := self._of_these_images(task)):
                    self.screen.say(f"{product}: no other images than those of {version}: not fitted again")
                else:
                    tasks.append(task)
        for task in tasks:
            if task.ignore:
                self.screen.say(f"{task.product}: {IgnoredArea.model_validate(task.ignore).describe()}")
        return tasks

    def _of_these_images(self, task: "Task") -> str | None:
        """The newest version that was fitted from the task's snapshot, refused ones too."""
        from pipeline.errors import RegistryError

        registry = self.releases.registry
        for version in reversed(registry.versions(task.product)):
            with suppress(RegistryError):  # damaged, or of another release: it tells of no images
                if registry.manifest(task.product, version).dataset_digest == task.digest:
                    return version
        return None

    def fitted(self, tasks: "list[Task]", run: str | None) -> dict[str, str]:
        """Product to version, of those that could be fitted."""
        from jobs.fitting.fit import fit_products
        from jobs.session.ray_session import ray_session

        if not tasks:
            return {}
        with self.screen.step("Starting Ray"):
            session = ray_session(self.settings)
            session.__enter__()
        try:
            with self.screen.fitting("Fitting", [task.product for task in tasks]) as on_beat:
                return fit_products(
                    self.settings, tasks, on_beat, run, on_failed=self._not_fitted, on_note=self.screen.say
                )
        finally:
            session.__exit__(None, None, None)

    def released(self, product: str, version: str, no_promote: bool, force: bool) -> bool:
        """Tell of a version and promote it; whether the gate did not refuse it."""
        manifest = self.releases.registry.manifest(product, version)
        for line in manifest.describe():
            self.screen.say(f"{product} {version}: {line}")
        if highest := self.releases.highest_held_out(manifest):
            self.screen.say(f"{product} {version}: {highest}")
        if no_promote:
            self.screen.say(f"{product} {version}: in the registry, not promoted")
            return True
        with self._alone(f"{product} {version} was not promoted"):
            verdict = self.releases.consider(product, version, force=force)
            self.screen.say(f"{product} {version}: {'promoted' if verdict.accepted else verdict.line()}")
            return verdict.accepted
        return True

    def _not_fitted(self, product: str, reason: str) -> None:
        self._fail(f"{product} can't be fitted", reason)

    def _fail(self, what: str, reason: str) -> None:
        from jobs.session.terminal import printable

        self.failed.append(what)
        click.echo(f"Error: {what}: {printable(reason)}", err=True)

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """What is wrong with one product does not keep the others from being fitted and promoted."""
        from model import ModelError
        from pipeline.errors import LinewatchError, StoreUnavailable

        try:
            yield
        except StoreUnavailable:
            raise
        except (LinewatchError, ModelError) as error:
            self._fail(what, str(error))
