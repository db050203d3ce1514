"""A message that ends its process is found, and set aside; a dead member's open transaction holds nobody up."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from jobs.line.follow import Follower, event_of
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.deadletters import pending
from pipeline.kafka.attempts import Attempts
from pipeline.kafka.clients import make_producer
from pipeline.kafka.session import KafkaSession
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.pipeline.line import Line, running
from tests.pipeline.mortal import POISON
from tests.pipeline.tiny import message, texture

ROOT = Path(__file__).parents[3]
SESSION_S = 3
TRANSACTION_S = 240
"""Far longer than an heir needs, on a busy machine too."""


def test_the_note_at_an_offset_comes_back_and_other_metadata_count_as_nothing() -> None:
    assert Attempts.read(Attempts(begun=2, alone=1).note()) == Attempts(2, 1)
    assert Attempts.read(Attempts(begun=2, alone=1, by="linewatch-0a").note()) == Attempts(2, 1, "linewatch-0a")
    assert Attempts().note() == ""
    for other in (None, "", "of another tool", "linewatch begun=x alone=1", "linewatch begun=1 alone=1 and more"):
        assert Attempts.read(other) == Attempts()


def test_a_suspect_is_in_flight_alone_and_its_neighbours_together(line: Line, eventually, monkeypatch) -> None:
    line.broker.suspects = {(1, 1)}  # the fourth image
    images = line.send(*(texture(number) for number in range(10)))
    batches: list[int] = []
    in_flight, most = Counter[bool](), Counter[bool]()
    begin, lock = line.worker._stages.begin, threading.Lock()

    def watched(works, owned, largest, *, alone=False):
        batch = begin(works, owned, largest, alone=alone)
        batches.append(len(works))
        with lock:
            in_flight[alone] += 1
            if in_flight[True]:
                most[True] = max(most[True], in_flight.total())

        def ended(_: object) -> None:
            with lock:
                in_flight[alone] -= 1

        batch.cut.add_done_callback(ended)
        return batch

    monkeypatch.setattr(line.worker._stages, "begin", watched)
    with running(line):
        eventually(line.finished)
    assert line.seen() == Counter(images)
    assert batches == [3, 1, 4, 2]
    assert most[True] == 1, "nothing was in flight beside the suspect"
    assert line.broker.attempts == {(1, 1): 1}
    assert line.broker.begun == 10, "each was noted as begun"


def test_what_was_taken_up_alone_too_often_is_set_aside_unread(line: Line, eventually, monkeypatch) -> None:
    line.broker.suspects = {(0, 1)}
    line.broker.attempts = {(0, 1): line.inspector.settings.stream.poison_attempts}
    images = line.send(*(texture(number) for number in range(6)))
    read = line.inspector.read
    seen: list[bytes] = []
    monkeypatch.setattr(line.inspector, "read", lambda data, key: (seen.append(data), read(data, key))[1])
    with running(line):
        eventually(line.finished)
    assert line.letters() == [(images[2], "PoisonPill")]
    assert line.seen() == Counter(images) - Counter([images[2]])
    assert texture(2) not in seen


@contextmanager
def member(how: str, settings: Settings, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.pipeline.mortal", how, json.dumps(settings.public()), *more]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.servers
@pytest.mark.apache
@pytest.mark.parametrize("how", ["sent", "open"])
def test_a_transaction_that_a_dead_member_left_open_is_ended_by_its_heir(apache: Plant, how: str) -> None:
    settings = apache.settings(
        kafka={"session_timeout_ms": 1000 * SESSION_S, "transaction_timeout_ms": 1000 * TRANSACTION_S}
    )
    ensure_topics(settings)
    send(settings, [b"a", b"b"])
    with member(how, settings) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        process.kill()
        died = time.monotonic()
        with (
            closing(KafkaSession(settings, rank=lambda: 1, exactly_once=True)) as heir,
            Follower(settings, settings.topics.events, from_beginning=True) as reader,
        ):
            found: list[Record] = []
            while len(found) < 2:
                found += [record for record in heir.poll(0.1) if heir.owns(record)]
                assert time.monotonic() - died < TRANSACTION_S / 2
            heir.commit([Outgoing(settings.topics.events, b"k", b"the heir's")], found)
            read: list[Record] = []
            while not read:
                heir.poll(0)
                read = reader.poll(0.1)
                assert time.monotonic() - died < TRANSACTION_S / 2, "its readers wait for the dead member's transaction"
    assert Counter(record.value for record in found) == Counter([b"a", b"b"]), "its offsets were not committed"
    assert [record.value for record in read] == [b"the heir's"]


@pytest.mark.servers
@pytest.mark.apache
def test_an_attempt_counts_once_whoever_made_it_is_dead(apache: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = apache.settings()
    ensure_topics(settings)
    send(settings, [b"a", b"b"])

    def member_of(process: str, rank: int) -> KafkaSession:
        monkeypatch.setattr("pipeline.kafka.session.PROCESS", process)
        return KafkaSession(settings, rank=lambda: rank, exactly_once=True)

    def records_of(session: KafkaSession, count: int, other: KafkaSession | None = None) -> list[Record]:
        found: list[Record] = []
        deadline = time.monotonic() + 90
        while len(found) < count:
            assert time.monotonic() < deadline, "no message came"
            if other:
                other.poll(0.05)
            found += [record for record in session.poll(0.05) if session.owns(record)]
        return found

    with closing(member_of("a", 0)) as first:
        taken = records_of(first, 2)
        assert [first.attempt(record) for record in taken for _ in range(2)] == [0, 0, 0, 0], "it lives"
        with closing(member_of("b", 1)) as second:
            [record] = records_of(second, 1, first)
            assert second.attempt(record) == 0, "the first only lost its partition"
            first.close()
            [other] = records_of(second, 1)
            assert other.partition != record.partition
            assert second.attempt(other) == 1, "the first is gone"


@pytest.mark.servers
@pytest.mark.apache
def test_an_image_that_ends_its_process_is_set_aside_and_the_line_goes_on(
    apache: Plant, objects: dict, tmp_path: Path
) -> None:
    settings = apache.settings(
        kafka={"session_timeout_ms": 1000 * SESSION_S},
        stream={"batch_images": 4},
        engine={"backend": "torch", "device": "cpu", "threads": 1},
    )
    ensure_topics(settings)
    for key, data in objects.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    images = send(settings, [texture(number) + (POISON if number == 21 else b"") for number in range(40)])
    deaths = 0
    seen: Counter[str] = Counter()
    letters = []
    with Follower(settings, settings.topics.events, settings.topics.deadletters, from_beginning=True) as follower:
        deadline = time.monotonic() + 120
        while sum(seen.values()) + len(pending(letters)) < len(images):
            with member("worker", settings, str(tmp_path)) as process:
                while process.poll() is None and sum(seen.values()) + len(pending(letters)) < len(images):
                    assert time.monotonic() < deadline, f"{deaths} deaths, {len(seen)} events"
                    for record in follower.poll(0.2):
                        if record.topic == settings.topics.events:
                            seen[event_of(record).image_id] += 1
                        else:
                            letters.append(record)
                deaths += process.poll() == -signal.SIGKILL
    assert [(letter.image_id, letter.error_class) for letter in pending(letters)] == [(images[21], "PoisonPill")]
    assert seen == Counter(images) - Counter([images[21]])
    among_others = deaths - settings.stream.poison_attempts
    assert among_others in (2, 3), "thrice if the first one had committed, and thereby cleared its note"


def send(settings: Settings, values: list[bytes]) -> list[str]:
    names = [f"img-{number:03d}" for number in range(len(values))]
    with closing(make_producer(settings)) as producer:
        for number, (name, value) in enumerate(zip(names, values, strict=True)):
            image = message(name, value, camera=f"/plant/cam{number % 2}")
            producer.send(settings.topics.images, image.value, image.key, list(image.headers), partition=number % 2)
    return names
