"""`linewatch rates`: how often a version is wrong on live parts."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.moments import moment_of

if TYPE_CHECKING:
    from jobs.loop.rates import Estimate, Rates


@click.command()
@click.argument("product")
@click.option("--since", metavar="T", callback=moment_of, help="Of parts that came since, such as 7d; whole hours.")
@click.option(
    "--width", default=0.02, show_default=True, type=click.FloatRange(0, 1, min_open=True),
    help="Say how many more answers make the interval of a rate so narrow.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def rates(config: Path | None, product: str, since: datetime | None, width: float, as_json: bool) -> None:
    """Say how often each version of PRODUCT rejects good parts and lets defective ones pass, with 95% intervals.

    From the answers of people (`linewatch feedback`) to parts that were drawn for them, weighted by how many were.
    Intervals are exact: they cover at least as often as they say. A part that people differ on counts as not answered.

    \b
    Example:  linewatch rates bottle --since 30d
    """
    from rich.console import Console

    from jobs.loop.current import current
    from jobs.loop.rates import rates as rates_of
    from jobs.session.connect import load_settings
    from jobs.session.progress import Screen

    since_ms = None if since is None else round(since.timestamp() * 1000)
    with current(load_settings(config), Screen(Console(stderr=True))) as history:
        found = rates_of(history, product, since_ms)
    if not found:
        raise click.ClickException(f"no parts of {product!r} in that time: is the name right, and does a line run?")
    if as_json:
        click.echo(json.dumps([_figures(one) for one in found], indent=2))
        return
    for one in found:
        _show(one, width)


def _figures(rates: "Rates") -> dict[str, Any]:
    from jobs.loop.rates import RATES

    return {
        "version": rates.version, "parts": rates.parts, "answered": rates.answered, "reported": rates.reported,
        "conflicts": rates.conflicts, "strata": [vars(stratum) for stratum in rates.strata],
        **{name: vars(rates.estimate(name)) for name in RATES},
    }  # fmt: skip


def _show(rates: "Rates", width: float) -> None:
    from jobs.loop.rates import RATES, more_answers

    heading = f"{rates.product} {rates.version}: {rates.parts:,} parts"
    click.echo(f"{heading}, {rates.answered:,} of those drawn are answered")
    for one in rates.strata:
        drawn = f"{one.verdict}, drawn at {one.drawn_at:.3g}"
        numbers = f"{one.parts:>9,} parts  {one.answered:>6,} answered  {one.defective:>6,} defective"
        click.echo(f"    {drawn:28} {numbers}")
    for name, words in RATES.items():
        found = rates.estimate(name)
        click.echo(f"  {name.replace('_', ' '):20} {_words(found):32} {words}")
        if found.width > width:
            click.echo(f"{'':24}{_more(more_answers(name, rates.strata, width), width)}")
    if rates.reported:
        click.echo(f"  {rates.reported} answers are to parts that were not drawn, and enter no rate")
    if rates.conflicts:
        click.echo(f"  {rates.conflicts} parts don't count: people differ ('linewatch feedback conflicts')")


def _words(estimate: "Estimate") -> str:
    value = "not known" if estimate.value is None else f"{estimate.value:.2%}"
    return f"{value}  [{estimate.low:.2%}, {estimate.high:.2%}]"


def _more(more: dict[Any, int] | None, width: float) -> str:
    if more is None:
        return f"not to be told to within {width:.3g}, whatever is answered"
    told = ", ".join(f"{number:,} more of {verdict}" for verdict, number in more.items())
    return f"to within {width:.3g}: some {told}"
