"""The `linewatch` command line. Heavy imports wait until a command needs them, so that help comes at once."""

import errno
import logging
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import click

from jobs.cli.audit import audit
from jobs.cli.bench import bench
from jobs.cli.benchmark import ablate, benchmark
from jobs.cli.chaos import chaos
from jobs.cli.data import evaluate, ingest, score
from jobs.cli.datasets import datasets
from jobs.cli.demo import demo, doctor
from jobs.cli.feedback import feedback
from jobs.cli.fit import fit
from jobs.cli.history import history
from jobs.cli.local import local
from jobs.cli.models import models, schedule
from jobs.cli.plan import plan
from jobs.cli.rates import rates
from jobs.cli.replay import replay
from jobs.cli.rescore import rescore
from jobs.cli.setup import config, schemas, setup
from jobs.cli.stream import deadletters, events, serve
from jobs.cli.weights import weights
from jobs.session import ending
from jobs.session.terminal import printable, take_any_text

ORDER = (
    ("First steps", ("demo", "doctor", "local", "setup", "config")),
    (
        "Images and models",
        ("ingest", "datasets", "fit", "models", "evaluate", "score", "schedule", "weights", "benchmark", "ablate"),
    ),
    (
        "The stream",
        ("plan", "serve", "replay", "events", "deadletters", "audit", "history", "feedback", "rates", "rescore"),
    ),
    ("For developers", ("bench", "chaos", "schemas")),
)


class Linewatch(click.Group):
    """Groups commands by what a person does with them, and turns linewatch's own errors into one line."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As a process of its own, whose signals and terminal are this command's."""
        take_any_text()
        ending.listen()
        try:
            return self.main(*args, **kwargs)
        finally:
            ending.over()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in ORDER:
            with formatter.section(title):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name, one.get_short_help_str(80)) for name, one in commands if one])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.UsageError):
            raise
        except KeyboardInterrupt:
            raise _ended() from None
        except Exception as error:
            if ctx.params.get("debug") and not isinstance(error, click.ClickException | click.Abort):
                raise
            if ending.received():  # whatever it says, it was told to end
                raise _ended() from None
            line = _line(error)
            if line is None:
                raise
            raise click.ClickException(printable(line)) from None


def _ended() -> click.exceptions.Exit:
    """Before its time. The status is what shells make of a process that a signal has ended."""
    number = ending.received() or signal.SIGINT
    click.echo(f"Ended by {'Ctrl-C' if number == signal.SIGINT else number.name}.", err=True)
    return click.exceptions.Exit(128 + number)


def _line(error: Exception) -> str | None:
    """What a person is told of an error; None where it is click's, or a fault of linewatch's own."""
    from infra.local import LocalServersError
    from model import ModelError
    from pipeline.errors import LinewatchError

    if isinstance(error, LinewatchError | ModelError | LocalServersError):
        return str(error)
    if isinstance(error, OSError) and error.strerror and error.errno != errno.EPIPE:
        # A file, a folder, a disk: all of them are for a person to mend. --debug shows where it was met.
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None


@click.group(cls=Linewatch, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="linewatch")
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (YAML). Default: $LINEWATCH_CONFIG, else ./linewatch.yaml where there is one.",
)
@click.option("--debug", is_flag=True, help="Log what happens, and show tracebacks.")
@click.pass_context
def main(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Visual inspection of conveyor lines.

    Good images go in; each camera image comes out as exactly one event, with a mask of its defects.

    \b
    See all of it at work:          linewatch demo
    On your own images, locally:    linewatch local up
                                    linewatch ingest photos/good --product bottle
                                    linewatch fit bottle
                                    linewatch serve
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when torch is loaded; see jobs/session/ray_session.py
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if not debug:
        for name in ("kafka", "ray", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")
    ctx.obj = config


for command in (
    ablate, audit, bench, benchmark, chaos, config, datasets, deadletters, demo, doctor, evaluate, events, feedback,
    fit, history, ingest, local, models, plan, rates, replay, rescore, schedule, schemas, score, serve, setup, weights,
):  # fmt: skip
    main.add_command(command)
