"""`linewatch rescore`: past images through another version, and what that changes."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.cli.data import product_option
from jobs.cli.moments import moment_of
from jobs.cli.outputs import OutputFile

if TYPE_CHECKING:
    from jobs.past.comparison import Comparison
    from jobs.past.rescore import Report
    from jobs.session.progress import Screen

SHOWN = 10


@click.command()
@product_option
@click.option("--version", "-v", required=True, metavar="V", help="The version that scores.")
@click.option(
    "--since", required=True, metavar="T", callback=moment_of,
    help="From images of then on: a time such as 2026-01-31T13:30Z, or how long ago: 30m, 2h, 1d.",
)  # fmt: skip
@click.option("--until", metavar="T", callback=moment_of, help="Up to images of then.  [default: now]")
@click.option("--to", "topic", required=True, metavar="TOPIC", help="Events go there, masks to TOPIC.masks.")
@click.option(
    "--rate", default=10.0, show_default=True, type=click.FloatRange(min=0), help="Most images a second; 0: no limit."
)
@click.option(
    "--most", default=10, show_default=True, type=click.IntRange(min=0), help="Name so many of the most changed images."
)
@click.option("--json", "json_file", type=OutputFile(), help="Write the report here.")
@click.pass_obj
def rescore(
    config: Path | None,
    product: str,
    version: str,
    since: datetime,
    until: datetime | None,
    topic: str,
    rate: float,
    most: int,
    json_file: Path | None,
) -> None:
    """Score past images of product P by version V, publish to TOPIC, and compare with the live events.

    Reads the images topic beside the live group, which doesn't notice. The same command again goes on where one was
    ended, and adds nothing where all is done. Images that can't be inspected are counted and listed, and become no
    dead letters.

    \b
    Example:  linewatch rescore -p bottle -v 20260131T120000Z-0f1e2d3c --since 1d --to linewatch.rescore.bottle
    """
    from jobs.line.deploy import delivery
    from jobs.past.rescore import Report, Rescore, compare_with_live
    from jobs.past.rescore import rescore as score
    from jobs.past.rescore_topic import led_to
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen

    if until is not None and until <= since:
        raise click.UsageError(
            f"--until ({until:%Y-%m-%d %H:%M:%SZ}) is not after --since ({since:%Y-%m-%d %H:%M:%SZ})"
        )
    settings = load_settings(config)
    led_to(settings, topic)  # a wrong name is told before servers are asked
    asked = Rescore(product, version, topic, since, until, rate, most)
    store, screen, broker = open_store(settings), Screen(), delivery(settings)
    screen.say(f"delivery: {broker.describe()}")
    end = f"{until:%Y-%m-%d %H:%M:%SZ}" if until else "now"
    screen.say(f"images of {product} from {since:%Y-%m-%d %H:%M:%SZ} to {end}, by version {version}, to {topic}")
    try:
        with screen.step(f"Rescoring {product}", time_left=True) as step:

            def on_progress(done: int, of: int, report: Report) -> None:
                step.advance(done, of)
                step.say(_counts(report))

            report = score(asked, settings, store, broker=broker, on_progress=on_progress)
        with screen.step("Comparing with the live events", time_left=True) as step:
            compare_with_live(report, settings, broker=broker, on_progress=step.advance)
    except KeyboardInterrupt:
        screen.say("ended; the same command goes on from here")
        raise
    _show(report, screen)
    if json_file:
        json_file.write_text(json.dumps(report.facts(), indent=2) + "\n")


def _counts(report: "Report") -> str:
    return f"{report.scored} scored, {report.there_already} there already, {len(report.refused)} not inspected"


def _show(report: "Report", screen: "Screen") -> None:
    asked = report.rescore
    if not report.images:
        screen.say(
            f"no image of {asked.product} in that time: the topic keeps them for its retention, 7 days by default"
        )
        return
    screen.say(f"{report.images} images from {report.first:%Y-%m-%d %H:%M:%SZ} to {report.last:%Y-%m-%d %H:%M:%SZ}")
    screen.say(f"{_counts(report)}; events on {asked.topic}, masks on {report.masks_topic}")
    for error_class, count in report.refused_classes.items():
        screen.say(f"not inspected, {error_class}: {count}")
    for one in report.refused[:SHOWN]:
        screen.say(f"  {one.partition}@{one.offset}  {one.error_class}: {one.message}")
    if len(report.refused) > SHOWN:
        screen.say(f"  and {len(report.refused) - SHOWN} more: --json writes all of them")
    assert report.comparison
    _compared(report.comparison, screen)


def _compared(comparison: "Comparison", screen: "Screen") -> None:
    from rich.table import Table
    from rich.text import Text

    from jobs.past.comparison import VERDICTS

    screen.say(
        f"{comparison.compared} images compared with their live events; {comparison.without_live_event} have none"
    )
    if comparison.shift is None:
        return
    before = ", ".join(f"{name} ({count})" for name, count in comparison.versions_before.items())
    screen.say(f"scored before by {before}")
    table = Table("before \\ after", title="Verdicts", title_justify="left")
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right")
    for verdict in VERDICTS:
        cells = [str(comparison.verdicts[verdict][other]) for other in VERDICTS]
        table.add_row(verdict, *cells)
    screen.console.print(table, highlight=False)
    shift = comparison.shift
    screen.say(
        f"{comparison.changed} verdicts changed; normalised score moved by {shift.median:+.4f} in the median, "
        f"{shift.p5:+.4f} (p5) to {shift.p95:+.4f} (p95)"
    )
    table = Table("image", "source", "score before", "after", "verdict before", "after",
                  title="Most changed", title_justify="left")  # fmt: skip
    for change in comparison.most_changed:
        scores = (f"{change.score_before:.4f}", f"{change.score_after:.4f}")
        place = f"{change.partition}@{change.offset}"
        table.add_row(Text(change.image_id), place, *scores, change.verdict_before, change.verdict_after)
    if comparison.most_changed:
        screen.console.print(table, highlight=False)
