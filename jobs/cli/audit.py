"""`linewatch audit`: whether each image has become exactly one event or dead letter."""

import json
import logging
from datetime import datetime
from pathlib import Path

import click

from jobs.cli.moments import moment_of
from jobs.cli.outputs import OutputFile

log = logging.getLogger(__name__)


class NotCounted(click.ClickException):
    """Told apart from a count that is off, whose exit status is 1."""

    exit_code = 2


@click.command()
@click.option(
    "--since", metavar="T", callback=moment_of,
    help="Count images that came at T or later: an ISO 8601 time, or 30m, 2h, 1d ago.  [default: all that is kept]",
)  # fmt: skip
@click.option("--until", metavar="T", callback=moment_of, help="Count images that came before T.  [default: now]")
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
@click.pass_context
def audit(ctx: click.Context, since: datetime | None, until: datetime | None, json_file: Path | None) -> None:
    """Count every image against its event, its mask or its dead letter, and say what is off.

    Reads the topics of images, events, masks and dead letters, and asks S3 for the objects of claim checks; changes
    nothing. Images that the replicas' group has not committed yet are pending. May run while replicas work.

    Exit status: 0 the count is right, 1 it is off, 2 it could not be made.

    \b
    Example:  linewatch audit --since 2h --json audit.json
    """
    from jobs.audit.run import run_audit
    from jobs.audit.table import show
    from jobs.audit.window import Window
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from pipeline.errors import LinewatchError

    if since and until and since >= until:
        raise click.UsageError("--since must be earlier than --until")
    screen = Screen()
    try:
        settings = load_settings(ctx.obj)
        open_store(settings)
        found = run_audit(settings, Window.between(since, until), screen)
    except LinewatchError as error:
        log.info("the audit ended early", exc_info=True)  # with --debug
        raise NotCounted(f"nothing was counted: {error}") from None
    show(found, screen.console)
    if json_file:
        json_file.write_text(json.dumps(found.figures(), indent=2) + "\n")
    if not found.right:
        ctx.exit(1)
