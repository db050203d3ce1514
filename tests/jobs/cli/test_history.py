"""`linewatch history` as people call it."""

import csv
import json
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from jobs.cli import main
from jobs.cli.history import AXES
from pipeline.history import Axis, History
from pipeline.history.database import Position, Skipped
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.pipeline.environment import clean_environment
from tests.pipeline.history.messages import NOON_MS, inspected, of_event, of_letter, read
from tests.pipeline.history.test_following import sent

__all__ = ["clean_environment"]
HOUR_MS = 3_600_000


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["history", *words])


@pytest.fixture
def filled() -> Settings:
    """Sixty events, one each ten minutes, in the file that is the default."""
    settings = Settings.load()
    topic = settings.topics.events
    records = [read(of_event(inspected(n, settings), settings), n, at_ms=NOON_MS + n * HOUR_MS // 6) for n in range(60)]
    with History(settings) as history:
        known = history.write(records, {}, {(topic, 0): Position(60)})
        letter = read(of_letter(settings, 3), 0)
        known = history.write([letter], known, {(settings.topics.deadletters, 0): Position(1)})
        history.skip(Skipped(topic, 1, 5, 7, "the broker deleted 7 messages"), known, Position(12))
    return settings


def test_before_anything_was_read_it_says_what_reads_it() -> None:
    for words in (["query"], ["query", "--by", "day"], ["status"]):
        done = run(*words)
        assert done.exit_code == 1
        assert "nothing is in sqlite:///linewatch-history.db yet: 'linewatch history' reads the topics" in done.output


@pytest.mark.usefixtures("filled")
def test_events_are_listed_newest_first() -> None:
    lines = run("query", "--verdict", "NotOK", "--limit", "3").output.splitlines()
    assert [line.split()[-1] for line in lines] == ["image-58", "image-53", "image-48"]
    assert all("NotOK" in line for line in lines)
    listed = [json.loads(line) for line in run("query", "--json", "--camera", "/plant/line1/cam1").output.splitlines()]
    assert {one["camera"] for one in listed} == {"/plant/line1/cam1"}
    assert listed[0]["at"] == "2026-01-31T21:30:00.000+00:00"
    assert len(listed) == 15
    since = run("query", "--json", "--since", "2026-01-31T20:00Z", "--until", "2026-01-31T21:00Z", "--limit", "99")
    assert len(since.output.splitlines()) == 6
    assert "no such events" in run("query", "--product", "none").output


@pytest.mark.usefixtures("filled")
def test_events_are_counted_along_axes() -> None:
    told = run("query", "--by", "day", "--by", "product").output
    assert "2026-01-31" in told
    assert told.count("│") == 2 * 8, "a row each for bottle and cap"
    lines = [json.loads(line) for line in run("query", "--by", "hour", "--json").output.splitlines()]
    assert len(lines) == 10
    assert all(line["events"] == 6 for line in lines)
    assert lines[0]["hour"] == "2026-01-31 12:00Z"


@pytest.mark.parametrize("name", ["events.csv", "events.parquet"])
@pytest.mark.usefixtures("filled")
def test_events_are_written_to_a_file(name: str) -> None:
    done = run("query", "--product", "cap", "--out", name)
    assert done.exit_code == 0, done.output
    assert "30 events in" in done.output
    if name.endswith(".csv"):
        with Path(name).open() as file:
            rows = list(csv.DictReader(file))
        assert rows[0]["captured"].startswith("2026-01-31T12:00:58")
    else:
        rows = parquet.read_table(name).to_pylist()
        assert str(rows[0]["captured"].tzinfo) == "UTC"
    assert len(rows) == 30
    assert {row["product"] for row in rows} == {"cap"}
    (flagged,) = [row for row in rows if row["image_id"] == "image-58"]
    assert json.loads(flagged["regions"])[0]["area_px"] == 20
    assert not list(Path().glob(".*.partial"))


@pytest.mark.usefixtures("filled")
def test_a_file_of_another_kind_is_refused() -> None:
    for words in (["--out", "events.xlsx"], ["--out", "x.csv", "--by", "day"]):
        done = run("query", *words)
        assert done.exit_code == 2
        assert "ends in .csv or .parquet" in done.output


@pytest.mark.usefixtures("filled")
def test_the_state_says_what_is_missing() -> None:
    told = run("status").output
    assert "events                 60 rows" in told
    assert "linewatch.events/0: read to offset 60" in told
    assert "! linewatch.events/1@5: 7 messages: the broker deleted 7 messages" in told


def test_the_command_offers_every_axis() -> None:
    assert get_args(Axis) == AXES


@pytest.mark.servers
def test_topics_are_read_to_their_end_and_again_after_a_rebuild(apache: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = apache.settings()
    ensure_topics(settings)
    sent(settings, range(40), transaction=True)
    monkeypatch.setenv("LINEWATCH_KAFKA__BOOTSTRAP_SERVERS", settings.kafka.bootstrap_servers)
    monkeypatch.setenv("LINEWATCH_TOPICS__PREFIX", settings.topics.prefix)
    done = run("--once")
    assert done.exit_code == 0, done.output
    assert "40 messages read" in done.output
    assert "0 messages read" in run("--once").output
    before = run("query", "--json", "--limit", "99").output
    assert len(before.splitlines()) == 40
    assert run("rebuild", "--yes").exit_code == 0
    assert run("query", "--json", "--limit", "99").output == before
