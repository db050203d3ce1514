"""`linewatch history`: what was inspected, in SQL, for as long as one likes."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.moments import moment_of
from jobs.cli.outputs import OutputFile

if TYPE_CHECKING:
    from pipeline.history import Axis, History, Query
    from pipeline.settings import Settings

AXES = ("hour", "day", "product", "camera", "model_version", "verdict")
"""pipeline.history.Axis, which would load SQLAlchemy for --help; a test compares them."""
NOTHING = "nothing is in {} yet: 'linewatch history' reads the topics into it, and goes on as long as it runs"


@click.group(invoke_without_command=True)
@click.option("--once", is_flag=True, help="End when all that is there has been read, instead of waiting for more.")
@click.pass_context
def history(ctx: click.Context, once: bool) -> None:
    """Follow the output topics into a database, where events stay longer than the broker keeps them.

    Events, dead letters, releases and answers are read as they are committed, each exactly once, into history.url: a
    file of SQLite by default, or a PostgreSQL. It may be ended at any time, and goes on where it was. It can be thrown
    away: `history rebuild` reads again what the broker still has.

    \b
    Example:  linewatch history
              linewatch history query --product bottle --verdict NotOK --since 2h
              linewatch history query --by day --since 30d
    """
    if ctx.invoked_subcommand:
        if once:
            raise click.UsageError("--once belongs to 'linewatch history' alone")
        return
    from jobs.session.connect import load_settings
    from pipeline.history import History

    settings = load_settings(ctx.obj)
    with History(settings) as database:
        _follow(settings, database, once=once)


def _follow(settings: "Settings", database: "History", *, once: bool) -> None:
    from jobs.session.progress import Screen
    from pipeline.history import Following, followed

    screen, stop = Screen(), threading.Event()
    following = Following(settings, database, screen.say)
    screen.say(f"{', '.join(followed(settings))} into {database.where}")
    if not once:
        screen.say("Ctrl-C ends it; it goes on where it was")
    # In a thread: Ctrl-C ends it between two transactions, and not in the middle of the client.
    thread = threading.Thread(target=following.run, args=[stop], kwargs={"once": once})
    thread.start()
    try:
        with screen.step("Following") as step:
            while thread.is_alive():
                thread.join(0.5)
                step.say(f"{following.read:,} messages read, {_behind(following.lag)}")
    finally:
        stop.set()
        thread.join()
    screen.say(f"{following.read:,} messages read")


def _behind(lag: int | None) -> str:
    return "waiting" if lag is None else f"{lag:,} wait" if lag else "none waits"


@history.command("query")
@click.option("--product", "-p", metavar="P", help="Only this product.")
@click.option("--camera", metavar="C", help="Only this camera, such as /plant/line1/cam1.")
@click.option("--verdict", type=click.Choice(["OK", "NotOK", "NotDecidable"]), help="Only this verdict.")
@click.option("--version", "model_version", metavar="V", help="Only what this model version scored.")
@click.option(
    "--since", metavar="T", callback=moment_of,
    help="Only what came to the broker at T or later: an ISO 8601 time, or 30m, 2h, 1d ago.",
)  # fmt: skip
@click.option("--until", metavar="T", callback=moment_of, help="Only what came before T.")
@click.option("--by", "axes", type=click.Choice(AXES), multiple=True, help="Count along these, instead of listing.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most events that are listed.")
@click.option("--out", type=OutputFile(), help="Write all of them to a file, FILE.csv or FILE.parquet.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def query(
    config: Path | None,
    product: str | None,
    camera: str | None,
    verdict: str | None,
    model_version: str | None,
    since: datetime | None,
    until: datetime | None,
    axes: tuple["Axis", ...],
    limit: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """List events, newest first; count them; or write them to a file.

    Times are the broker's. Counts are of whole hours, and of all events that were ever read; the events themselves are
    kept for history.keep_days.

    \b
    Example:  linewatch history query --camera /plant/line1/cam1 --verdict NotOK --limit 50
              linewatch history query --by day --by product --since 30d
              linewatch history query --product bottle --since 7d --out bottle.parquet
    """
    from jobs.past.export import FORMATS
    from jobs.session.connect import load_settings
    from pipeline.history import History, Query, counts, events

    if out and (axes or out.suffix not in FORMATS):
        raise click.UsageError(f"--out takes a file of events, and its name ends in {' or '.join(FORMATS)}")
    asked = Query(product, camera, model_version, verdict, *(_ms(time) for time in (since, until)))
    with History(load_settings(config)) as database:
        if not database.positions():
            raise click.ClickException(NOTHING.format(database.where))
        if axes:
            _show_counts(counts(database, asked, *axes), axes, as_json)
        elif out:
            _write(database, asked, out)
        else:
            rows = list(events(database, asked, limit))
            for row in rows:
                click.echo(_json(row) if as_json else _line(row))
            if not rows:
                click.echo("no such events", err=True)


def _ms(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)


def _write(database: "History", asked: "Query", out: Path) -> None:
    from jobs.past.export import export
    from jobs.session.progress import Screen
    from pipeline.history import counts, events

    screen = Screen()
    about = sum(count.events for count in counts(database, asked))
    with screen.step(f"Writing {out}") as step:
        written = export(events(database, asked), out, lambda done: step.advance(done, max(about, done)))
    screen.say(f"{written:,} events in {out}")


def _show_counts(found: list[Any], axes: tuple[str, ...], as_json: bool) -> None:
    from rich.table import Table

    from jobs.session.progress import Screen

    verdicts = ("OK", "NotDecidable", "NotOK")
    if as_json:
        for count in found:
            at = dict(zip(axes, map(_cell, axes, count.at), strict=True))
            click.echo(json.dumps({**at, "events": count.events, **count.verdicts}))
        return
    table = Table()
    for axis in axes:
        table.add_column(axis.replace("model_", ""))
    for name in ("events", *verdicts, "NotOK share"):
        table.add_column(name, justify="right")
    for count in found:
        numbers = [count.events, *(count.verdicts.get(name, 0) for name in verdicts)]
        share = f"{count.verdicts.get('NotOK', 0) / count.events:.2%}"
        table.add_row(*map(_cell, axes, count.at), *(f"{number:,}" for number in numbers), share)
    Screen().console.print(table)


def _cell(axis: str, value: Any) -> str:
    if axis not in ("hour", "day"):
        return str(value)
    time = datetime.fromtimestamp(value / 1000, UTC)
    return f"{time:%Y-%m-%d %H:%MZ}" if axis == "hour" else f"{time:%Y-%m-%d}"


def _json(row: dict[str, Any]) -> str:
    from pipeline.history.queries import plain

    shown: Callable[[Any], str] = lambda time: time.isoformat(timespec="milliseconds")  # noqa: E731
    return json.dumps(plain(row), default=shown, separators=(",", ":"))


def _line(row: dict[str, Any]) -> str:
    from jobs.session.terminal import printable

    colour = {"OK": "green", "NotOK": "red", "NotDecidable": "yellow"}[row["verdict"]]
    time = datetime.fromtimestamp(row["at_ms"] / 1000, UTC).astimezone()
    head = printable(f"{time:%Y-%m-%d %H:%M:%S}  {row['camera']}  {row['product']}")
    verdict = click.style(f"{row['verdict']:12}", fg=colour)
    words = printable(f"{row['model_version']}  {row['image_id']}")
    return f"{head}  {verdict}  {row['normalised_score']:6.3f}  {words}"


@history.command("status")
@click.pass_obj
def status(config: Path | None) -> None:
    """Say what is in the database, how far the topics were read, and what is missing.

    \b
    Example:  linewatch history status
    """
    from jobs.session.connect import load_settings
    from jobs.session.terminal import printable
    from pipeline.history import History, missing

    with History(load_settings(config)) as database:
        positions, sizes = database.positions(), database.sizes()
        gone = missing(database, limit=10)
        copies = database.copies()
        where = database.where
    if not positions:
        raise click.ClickException(NOTHING.format(where))
    click.echo(where)
    for name, rows in sizes.items():
        click.echo(f"  {name:12} {rows:>12,} rows")
    click.echo(f"  copies       {copies:>12,} events that another message had said already")
    for (topic, partition), position in sorted(positions.items()):
        click.echo(f"  {topic}/{partition}: read to offset {position.next}")
    for one in gone:
        place = f"{one.topic}/{one.partition}@{one.offset}"
        click.echo(f"! {place}: {one.messages} messages: {printable(one.why)}")


@history.command("rebuild")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def rebuild(config: Path | None, yes: bool) -> None:
    """Throw the database away and read again what the broker still has. Older events are gone then.

    A follower that runs meanwhile goes on by itself.

    \b
    Example:  linewatch history rebuild
    """
    from jobs.session.connect import load_settings
    from pipeline.history import History, throw_away

    settings = load_settings(config)
    if not yes:
        click.confirm(
            f"throw {settings.history.url} away? What the broker has deleted since can't be read again", abort=True
        )
    throw_away(settings)
    with History(settings) as database:
        _follow(settings, database, once=True)
