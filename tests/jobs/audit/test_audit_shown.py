"""What an audit shows, whom it asks, and when it can't count."""

import io
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from jobs.audit import objects
from jobs.audit.objects import missing_objects
from jobs.audit.report import Audit
from jobs.audit.table import show
from jobs.cli import main
from jobs.line.deploy import delivery
from pipeline.errors import StoreUnavailable
from pipeline.fakes import MemoryStore
from pipeline.kafka import clients as kafka_clients
from pipeline.settings import Settings
from tests.jobs.audit.test_audit import lose_one
from tests.jobs.fabricated import Stream, inspected_stream


@pytest.fixture
def stream() -> Stream:
    return inspected_stream()


@pytest.mark.parametrize("most", [100, 0], ids=["asked one by one", "told by a listing"])
def test_missing_objects_are_found(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ASK_EACH", most)
    store, seen = MemoryStore(), []
    for key in ("images/b", "masks/a", "heats/c", "models/x"):
        store.put(key, b"x")
    keys = ["images/b", "images/gone", "masks/a", "", "heats/c", "masks/a"]
    missing = missing_objects(store, keys, lambda *done: seen.append(done))
    assert missing.tolist() == [False, True, False, True, False, False]
    assert seen
    assert missing_objects(store, []).tolist() == []
    store.outages = 9
    with pytest.raises(StoreUnavailable):
        missing_objects(store, keys)


def test_a_store_is_only_asked_where_there_are_claim_checks(stream: Stream) -> None:
    stream.store.outages = 1
    assert stream.audit().right


def shown(audit: Audit) -> str:
    console = Console(file=io.StringIO(), width=100)
    show(audit, console)
    return console.file.getvalue()


def test_the_table_says_what_is_off_and_where(stream: Stream) -> None:
    assert "✓ right: each of 8 images has its outcome, each event its mask" in shown(stream.audit())
    lose_one(stream)
    told = shown(stream.audit(committed={0: 6, 1: 5}))
    assert "✗ off: 1 lost" in told
    (line,) = [line for line in told.splitlines() if "linewatch.images 0:3" in line]
    assert "img-0-3" in line
    assert "/plant/cam0" in line
    stream.inspect(stream.images[2])
    stream.event(stream.images[1])
    told = shown(stream.audit(exactly_once=False))
    assert "✓ right: each of 8 images has its outcome, each event its mask; 1 doubled_same_id" in told
    assert "! the broker delivers at least once, so doubled_same_id and masks_doubled are allowed" in told


def test_names_from_outside_are_shown_as_they_are_and_move_no_cursor() -> None:
    stream = Stream()
    stream.image(0, camera="/a/\x1b[2J[red]", name="i\r\nd")
    told = shown(stream.audit())
    assert "\x1b" not in told
    assert "/a/\ufffd[2J[red]" in told
    assert "i\ufffd\ufffdd" in told


def test_many_partitions_are_shown_by_those_in_trouble(stream: Stream) -> None:
    lose_one(stream)
    audit = stream.audit()
    lines = [replace(audit.partitions[number == 7], partition=number) for number in range(40)]
    told = shown(replace(audit, partitions=lines))
    assert "40 partitions" in told
    assert "│         0 │" in told
    assert "│         7 │" not in told


def test_a_count_that_could_not_be_made_is_told_apart_from_one_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*options: str) -> Result:
        return CliRunner().invoke(main, ["audit", *options])

    assert run().exit_code == 2
    assert "Error: nothing was counted: no S3 credentials" in run().output
    monkeypatch.setenv("LINEWATCH_S3__ACCESS_KEY", "key")
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY", "secret")
    monkeypatch.setenv("LINEWATCH_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    honest = kafka_clients.connection
    monkeypatch.setattr(kafka_clients, "connection", lambda kafka: {**honest(kafka), "bootstrap_timeout_ms": 300})
    monkeypatch.setenv("LINEWATCH_S3__ENDPOINT", "http://127.0.0.1:9")
    assert "Error: nothing was counted: S3 at http://127.0.0.1:9 does not answer" in run().output
    monkeypatch.setattr("jobs.session.connect.open_store", lambda _: None)
    assert run().exit_code == 2
    assert "Error: nothing was counted: Kafka at 127.0.0.1:9 does not answer" in run().output
    assert "'soon' is no moment" in run("--since", "soon").output
    assert "--since must be earlier than --until" in run("--since", "1h", "--until", "2h").output


@pytest.mark.parametrize(("told", "trusted"), [("exactly_once", True), ("at_least_once", False)])
def test_offsets_are_trusted_of_a_broker_that_is_told_to_deliver_exactly_once(told: str, trusted: bool) -> None:
    broker = delivery(Settings.from_values({"kafka": {"delivery": told}}))
    assert (broker.aborts_hidden, broker.end_offsets_exact) == (trusted, trusted)
