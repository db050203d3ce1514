"""`linewatch serve`, `events` and `deadletters`: the stream, from where it begins and where it ends."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jobs.session.progress import Screen
    from pipeline.contracts.events import InspectionEvent
    from pipeline.settings import Settings


@click.command()
@click.option("--replicas", type=click.IntRange(min=1), help="Members of the consumer group.  [default: from settings]")
@click.option("--max-replicas", type=click.IntRange(min=1), help="Scale on consumer lag up to this many.")
@click.option(
    "--roll", is_flag=True, help="Replace the replicas on the cluster one at a time: new code or weights without a gap."
)
@click.option("--down", is_flag=True, help="Take the replicas off the cluster of serving.ray_address.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the REST endpoint.  [default: from settings]")
@click.pass_obj
def serve(
    config: Path | None, replicas: int | None, max_replicas: int | None, roll: bool, down: bool, port: int | None
) -> None:
    """Start the inspection replicas on Ray Serve, and keep them until Ctrl-C.

    With serving.ray_address the replicas go to that cluster and stay there when this command has ended; --down takes
    them off it again. The configuration sent is the whole of that cluster's Serve applications.

    Each replica consumes camera images from Kafka, scores them, and publishes events and masks in one transaction;
    the same replicas answer POST /v1/products/P/score and /healthz. Each node answers /metrics on serving.metrics_port.

    \b
    Example:  linewatch serve --replicas 2
              linewatch serve --replicas 1 --max-replicas 4
    """
    from jobs.line.deploy import withdraw
    from jobs.line.port import reserve_port
    from jobs.session.connect import load_settings, open_store
    from jobs.session.progress import Screen
    from jobs.session.ray_session import ray_session
    from pipeline.kafka.topics import ensure_topics
    from pipeline.kafka.topics_fit import fitting
    from pipeline.serving.door import require_door

    settings = load_settings(config)
    chosen = {"replicas": replicas, "max_replicas": max_replicas, "port": port}
    settings = settings.with_serving({name: value for name, value in chosen.items() if value is not None})
    screen = Screen()
    if (down or roll) and not settings.serving.ray_address:
        raise click.ClickException(
            "--down and --roll are for a cluster that serving.ray_address names; Ctrl-C ends a private one"
        )
    if down:
        with ray_session(settings):
            withdraw()
        return
    require_door(settings.serving)
    open_store(settings)
    ensure_topics(settings)
    for warning in fitting(settings):
        screen.say(f"! {warning}")
    with reserve_port(settings):
        _serve(settings, screen, roll)


def _serve(settings: "Settings", screen: "Screen", roll: bool) -> None:
    from jobs.line.deploy import delivery, deploy, metrics_addresses, rest_address, shut_down
    from jobs.line.watch import watch
    from jobs.session.ray_session import ray_session

    broker = delivery(settings)
    screen.say(f"delivery: {broker.describe()}")
    with ray_session(settings) as session:
        with screen.step("Deploying replicas") as step:
            generation = datetime.now(UTC).isoformat() if roll else ""
            deploy(settings, session, exactly_once=broker.aborts_hidden, generation=generation, say=step.say)
        screen.say(f"REST at {rest_address(session)}, Ray's dashboard at {session.dashboard}")
        screen.say(f"metrics at {', '.join(metrics_addresses(session, screen.say))}")
        if not session.private:
            screen.say("the replicas stay on the cluster; 'linewatch serve --down' takes them off it")
            return
        screen.say("Ctrl-C ends it")
        try:
            watch(rest_address(session), screen.say, cert_file=settings.serving.tls_cert_file)
        except KeyboardInterrupt:
            screen.say("finishing the batches in hand")
        finally:
            shut_down()


@click.command()
@click.option("--verdict", type=click.Choice(["OK", "NotOK", "NotDecidable"]), multiple=True, help="Only these.")
@click.option("--product", "-p", metavar="P", help="Only this product.")
@click.option("--from-beginning", is_flag=True, help="All events that the broker keeps, not only new ones.")
@click.option("--no-follow", is_flag=True, help="End when there are no more, instead of waiting for new ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON event a line.")
@click.pass_obj
def events(
    config: Path | None,
    verdict: tuple[str, ...],
    product: str | None,
    from_beginning: bool,
    no_follow: bool,
    as_json: bool,
) -> None:
    """Follow inspection events in the terminal; only committed ones are shown.

    \b
    Example:  linewatch events --verdict NotOK --product bottle
    """
    from jobs.line.follow import Follower, event_of
    from jobs.session.connect import load_settings

    settings = load_settings(config)
    with Follower(settings, settings.topics.events, from_beginning=from_beginning or no_follow) as follower:
        records = follower.rest() if no_follow else follower.follow(threading.Event())
        try:
            for record in records:
                event = event_of(record)
                if (verdict and event.verdict not in verdict) or (product and event.product != product):
                    continue
                if as_json:
                    # In ASCII, which any terminal takes.
                    click.echo(json.dumps(event.model_dump(mode="json"), separators=(",", ":")))
                    continue
                click.echo(_line(event))
        except KeyboardInterrupt:
            pass


def _line(event: "InspectionEvent") -> str:
    colour = {"OK": "green", "NotOK": "red", "NotDecidable": "yellow"}[event.verdict]
    time = f"{event.times.captured.astimezone():%H:%M:%S.%f}"[:-3]
    verdict = click.style(f"{event.verdict:12}", fg=colour)
    score = f"{event.normalised_score:6.3f}  {len(event.regions)} regions"
    return f"{time}  {event.camera}  {event.product}  {verdict}  {score}  {event.model_version}  {event.image_id}"


@click.group()
def deadletters() -> None:
    """See which messages could not become an event, and send them again after a fix.

    \b
    Example:  linewatch deadletters list
              linewatch deadletters replay --class ProductUnknown
    """


class_option = click.option("--class", "error_class", metavar="CLASS", help="Only this class, such as UnreadableImage.")


@deadletters.command("list")
@class_option
@click.pass_obj
def list_letters(config: Path | None, error_class: str | None) -> None:
    """List dead letters that were not sent again yet, oldest first."""
    from jobs.line.letters import pending_letters
    from jobs.session.connect import load_settings

    letters = pending_letters(load_settings(config), error_class)
    for letter in letters:
        click.echo(
            f"{letter.time}  {letter.error_class:18}  {letter.topic}/{letter.partition}@{letter.offset}  "
            f"{letter.camera or '-'}  {letter.product or '-'}  {letter.image_id or '-'}\n    {letter.message}"
        )
    click.echo(f"{len(letters)} dead letters", err=True)


@deadletters.command("replay")
@class_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def replay_all(config: Path | None, error_class: str | None, yes: bool) -> None:
    """Send dead letters to their topic again, each once. Those that fail again come back as new dead letters."""
    from jobs.line.deploy import delivery
    from jobs.line.letters import pending_letters, replay_letters
    from jobs.session.connect import load_settings
    from pipeline.storage.store import S3Store

    settings = load_settings(config)
    letters = pending_letters(settings, error_class)
    again = [letter for letter in letters if not letter.deleted]
    if len(again) < len(letters):
        click.echo(f"{len(letters) - len(again)} letters say what was deleted unread: nothing is left of that to send")
    if not again:
        click.echo("no dead letters" if not letters else "no other dead letters")
        return
    if not yes:
        click.confirm(f"send {len(again)} messages again?", abort=True)
    count = replay_letters(settings, again, S3Store(settings.s3), exactly_once=delivery(settings).aborts_hidden)
    click.echo(f"{count} messages sent again")
