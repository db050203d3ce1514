"""`linewatch feedback`: what people say of events."""

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.moments import moment_of

if TYPE_CHECKING:
    from pipeline.contracts.events import Answer, Box, Origin


class BoxType(click.ParamType):
    name = "x,y,w,h"

    def convert(self, value: Any, param: click.Parameter | None, _: click.Context | None) -> "Box":
        from pydantic import ValidationError

        from pipeline.contracts.events import Box

        try:
            x, y, width, height = map(int, str(value).split(","))
            return Box(x=x, y=y, width=width, height=height)
        except (ValueError, ValidationError):
            self.fail(
                f"{value!r} is no box: four whole numbers x,y,w,h in px of the image, such as 310,96,42,18", param
            )


@click.group()
def feedback() -> None:
    """Say whether a verdict was right, and see what was said.

    An answer is a message on linewatch.feedback. The last answer of a person to an event counts. Where people differ,
    that is a conflict, which nobody resolves but they.

    \b
    Example:  linewatch feedback give 5b48d642c7f2abcbd25666e8bfb6af7e defect --kind scratch --box 310,96,42,18
              linewatch feedback conflicts
    """


by_option = click.option("--by", metavar="NAME", help="Who says so.  [default: the name of this login]")


@feedback.command("give")
@click.argument("event")
@click.argument("answer", type=click.Choice(["good", "defect", "unsure"]))
@click.option("--kind", metavar="K", help="Kind of the defect, in your own words.")
@click.option("--box", "boxes", type=BoxType(), multiple=True, help="Where the defect is, in px; may be given again.")
@click.option("--comment", metavar="TEXT", help="What else there is to say.")
@click.option(
    "--origin", type=click.Choice(["review", "blind", "golden", "report"]), default="review", show_default=True,
    help="Why it was looked at: it was doubtful; it was drawn blindly; a golden part; somebody reported it.",
)  # fmt: skip
@by_option
@click.pass_obj
def give_answer(
    config: Path | None,
    event: str,
    answer: "Answer",
    kind: str | None,
    boxes: tuple["Box", ...],
    comment: str | None,
    origin: "Origin",
    by: str | None,
) -> None:
    """Say of EVENT that its part is good, has a defect, or that you are unsure.

    \b
    Example:  linewatch feedback give 5b48d642c7f2abcbd25666e8bfb6af7e good --by anna
    """
    _give(config, event, answer, by, kind=kind, boxes=boxes, comment=comment, origin=origin)


@feedback.command("withdraw")
@click.argument("event")
@by_option
@click.pass_obj
def withdraw(config: Path | None, event: str, by: str | None) -> None:
    """Take back what you said of EVENT: it counts no more.

    \b
    Example:  linewatch feedback withdraw 5b48d642c7f2abcbd25666e8bfb6af7e --by anna
    """
    _give(config, event, "withdrawn", by)


def _give(config: Path | None, event: str, answer: "Answer", by: str | None, **words: Any) -> None:
    from jobs.line.deploy import delivery
    from jobs.loop.feedback import find, give
    from jobs.session.connect import load_settings
    from jobs.session.terminal import printable

    settings = load_settings(config)
    about = find(settings, event, exact=delivery(settings).aborts_hidden)
    given = give(settings, about, answer, by or getpass.getuser(), **words)
    click.echo(printable(f"{given.answer}: {about.product}, {about.camera}, {about.image_id}, says {given.person}"))


@feedback.command("queue")
@click.argument("product")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most events that are listed.")
@click.pass_obj
def show_queue(config: Path | None, product: str, limit: int) -> None:
    """List the parts of PRODUCT that people are asked about and nobody has answered.

    All doubtful ones, flagged ones (review.flagged_rate), and a blind sample of those taken as OK (review.blind_rate),
    in an order that says nothing of them. What the verdict was is not told: answer by the picture, in this order, or
    the rates will be wrong.

    \b
    Example:  linewatch feedback queue bottle
              linewatch replay --event 5b48d642c7f2abcbd25666e8bfb6af7e --out look
    """
    from rich.console import Console

    from jobs.loop.current import current
    from jobs.session.connect import load_settings
    from jobs.session.progress import Screen
    from jobs.session.terminal import printable
    from pipeline.history import queue

    with current(load_settings(config), Screen(Console(stderr=True))) as history:
        rows = queue(history, product, limit)
    for row in rows:
        time = datetime.fromtimestamp(row["captured_ms"] / 1000, UTC).astimezone()
        click.echo(printable(f"{row['event_id']}  {time:%Y-%m-%d %H:%M:%S}  {row['camera']}  {row['image_id']}"))
    if not rows:
        click.echo("nobody is waited for", err=True)


@feedback.command("list")
@click.option("--product", "-p", metavar="P", help="Only of this product.")
@click.option(
    "--since", metavar="T", callback=moment_of, help="Only what was said at T or later, such as 2h or 1d ago."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_answers(config: Path | None, product: str | None, since: datetime | None, as_json: bool) -> None:
    """List the answers that count, the last first.

    \b
    Example:  linewatch feedback list --product bottle --since 7d
    """
    _list(config, product, since, as_json, conflicts=False)


@feedback.command("conflicts")
@click.option("--product", "-p", metavar="P", help="Only of this product.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_conflicts(config: Path | None, product: str | None, as_json: bool) -> None:
    """List events that some say are good and others say are not. Until one of them changes the answer, neither counts.

    \b
    Example:  linewatch feedback conflicts
    """
    _list(config, product, None, as_json, conflicts=True)


@feedback.command("collect")
@click.argument("product")
@click.pass_obj
def collect_answers(config: Path | None, product: str) -> None:
    """Bring what people agree on into the dataset of PRODUCT.

    Parts that are good may be fitted on; defective ones judge a version, and are never fitted on. Collected again it
    changes nothing; an answer that has changed changes the label, and one that was withdrawn takes the image out again.

    \b
    Example:  linewatch feedback collect bottle
    """
    from jobs.loop.collect import collect
    from jobs.loop.current import current
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from jobs.session.terminal import printable

    settings, screen = load_settings(config), Screen()
    store = open_store(settings)
    with current(settings, screen) as history, screen.step(f"Collecting {product}") as step:
        found = collect(settings, store, history, product, step.advance)
    if found.report is not None:
        report = found.report
        good, labelled = len(report.snapshot.good), len(report.snapshot.labelled)
        screen.say(f"{report.added} images are new, {report.renewed} have another label")
        screen.say(f"{product} has {good} good images and {labelled} that judge")
    elif not found.removed:
        screen.say("nothing is to be collected")
    if found.removed:
        screen.say(f"{_images(len(found.removed))} taken out again: nobody says any more what they are")
    if found.conflicts:
        parts = "1 part does" if found.conflicts == 1 else f"{found.conflicts} parts do"
        screen.say(f"! {parts} not count: people differ ('linewatch feedback conflicts')")
    for line in (*found.told, *found.gone):
        screen.say(f"! {printable(line)}")


def _images(number: int) -> str:
    return "1 image is" if number == 1 else f"{number} images are"


def _list(config: Path | None, product: str | None, since: datetime | None, as_json: bool, *, conflicts: bool) -> None:
    from rich.console import Console

    from jobs.loop.current import current
    from jobs.session.connect import load_settings
    from jobs.session.progress import Screen
    from pipeline.history import answers
    from pipeline.history.queries import plain

    since_ms = None if since is None else round(since.timestamp() * 1000)
    screen = Screen(Console(stderr=True))  # what is listed may go to another program
    with current(load_settings(config), screen) as history:
        rows = [row for row in answers(history, product, since_ms) if row["conflict"] or not conflicts]
    if conflicts:
        rows.sort(key=lambda row: str(row["event_id"]))
    for row in rows:
        if as_json:
            click.echo(json.dumps(plain(row), default=lambda time: time.isoformat(), separators=(",", ":")))
        else:
            click.echo(_line(row))
    if not rows:
        click.echo("no conflicts" if conflicts else "no answers", err=True)


def _line(row: dict[str, Any]) -> str:
    from jobs.session.terminal import printable

    time = datetime.fromtimestamp(row["given_ms"] / 1000, UTC).astimezone()
    colour = {"good": "green", "defect": "red", "unsure": "yellow"}[row["answer"]]
    answer = click.style(f"{row['answer']:7}", fg=colour)
    words = [
        row["event_id"],
        row["product"],
        row["camera"],
        f"by {row['person']}",
        row["kind"] or "",
        row["comment"] or "",
    ]
    told = "  ".join(word for word in words if word)
    conflict = "  " + click.style("conflict", fg="yellow", bold=True) if row["conflict"] else ""
    return f"{time:%Y-%m-%d %H:%M:%S}  {answer}  {printable(told)}{conflict}"
