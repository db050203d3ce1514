"""`linewatch chaos`: faults on purpose, and the count."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.outputs import OutputFile, OutputFolder

if TYPE_CHECKING:
    from jobs.chaos.plan import Fault, Kind


@click.command()
@click.option("--images", "-n", default=10_000, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--seed", default=0, show_default=True, help="Decides what is done to whom, and when.")
@click.option("--rate", default=100.0, show_default=True, type=click.FloatRange(min=1), help="Images a second.")
@click.option(
    "--burst",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="So many times faster for the middle half of the images.",
)
@click.option("--replicas", default=2, show_default=True, type=click.IntRange(min=1), help="Members of the group.")
@click.option("--max-replicas", default=0, type=click.IntRange(min=0), help="Up to so many when lag grows.")
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(min=1), help="Worker nodes of Ray.")
@click.option(
    "--hosts",
    is_flag=True,
    help="Servers and nodes each on a host of their own, a network namespace, whose cable can be pulled. Needs root.",
)
@click.option(
    "--kafka", type=click.Choice(["auto", "apache", "tansu"]), default="auto", show_default=True, help="Which broker."
)
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="Of Apache Kafka.")
@click.option(
    "--every", multiple=True, metavar="KIND=S",
    help="Seconds between two faults of a kind, 0 for never: replica, stopped, broker, store, node; with --hosts also "
    "cut and split. May be repeated.",
)  # fmt: skip
@click.option("--at", multiple=True, metavar="KIND=S", help="Once, so many seconds after the start. May be repeated.")
@click.option("--folder", type=OutputFolder(), default=Path("chaos-results"), show_default=True, help="New.")
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures here.")
@click.pass_context
def chaos(
    ctx: click.Context,
    every: tuple[str, ...],
    at: tuple[str, ...],
    brokers: str,
    folder: Path,
    json_file: Path | None,
    **told: Any,
) -> None:
    """Send IMAGES through servers, nodes and replicas of its own while they are killed, and count what came out.

    By default a replica is killed with -9 every 20 s and one is stopped past its session every 90 s; a broker and the
    S3 server are killed every two minutes, a worker node with all on it every three. With --hosts a worker's host can
    be cut off for 30 s (cut), or the servers' host from all others (split).

    FOLDER gets timeline.jsonl, what was done to whom and when; samples.jsonl, the figures over time, and chaos.png,
    their picture; and audit.json.

    Exit status: 0 every image has exactly one event or dead letter and every event its mask, 1 the count is off.

    \b
    Example:  linewatch chaos --images 2000 --every node=0 --json chaos.json
              linewatch chaos --images 100000 --brokers 3 --every broker=30
              linewatch chaos --images 10000 --rate 15 --burst 10 --replicas 1 --max-replicas 3 \\
                  --every replica=0 --every stopped=0 --every broker=0 --every store=0 --every node=0
    """
    from jobs.chaos.run import ChaosRun, run_chaos
    from jobs.session.progress import Screen

    intervals, once = _faults(every, at, cables=told["hosts"])
    if folder.exists():
        raise click.BadParameter(f"{folder} is there already: give a new folder, or remove it", param_hint="--folder")
    screen = Screen()
    # The other options have the names of the run's fields.
    found = run_chaos(ChaosRun(**told, brokers=int(brokers), intervals_s=intervals, once=once), folder, screen)
    if json_file:
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    for name, value in found.items():
        if name != "run":
            screen.say(f"{name}: {value}")
    if not found["right"]:
        ctx.exit(1)


def _faults(every: Sequence[str], at: Sequence[str], *, cables: bool) -> "tuple[dict[Kind, float], list[Fault]]":
    """Seconds between two of a kind, and those that come once."""
    from jobs.chaos.plan import INTERVALS_S, Fault

    intervals = {**INTERVALS_S, **dict(_kind_and_seconds(one, "--every") for one in every)}
    once = [Fault(seconds, kind, 0.0) for kind, seconds in (_kind_and_seconds(one, "--at") for one in at)]
    if not cables and (intervals["cut"] or intervals["split"] or {one.kind for one in once} & {"cut", "split"}):
        raise click.BadParameter("cut and split need cables: add --hosts", param_hint="--every or --at")
    return intervals, once


def _kind_and_seconds(text: str, option: str) -> "tuple[Kind, float]":
    from jobs.chaos.plan import INTERVALS_S

    kind, _, seconds = text.partition("=")
    if kind not in INTERVALS_S or not seconds.replace(".", "", 1).isdigit():
        raise click.BadParameter(
            f"{text!r}: write KIND=SECONDS with one of {', '.join(INTERVALS_S)}", param_hint=option
        )
    return kind, float(seconds)
