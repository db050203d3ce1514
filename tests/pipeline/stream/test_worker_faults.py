"""Nothing is lost and nothing doubled, whatever happens meanwhile."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.contracts.broker import StreamSession
from pipeline.contracts.events import CLAIM_CONTENT_TYPE
from pipeline.errors import BrokerUnavailable
from pipeline.fakes import MemorySession, MemoryStore
from pipeline.storage import claims
from pipeline.stream.patience import backoff
from pipeline.stream.worker import StreamWorker
from tests.pipeline.line import EVENTS, IMAGES, LETTERS, Line, running, settings
from tests.pipeline.tiny import PRODUCT, publish, texture


def test_a_lost_commit_loses_nothing_and_doubles_nothing(line: Line, eventually) -> None:
    line.broker.lost_commits = 3
    images = line.send(*(texture(number) for number in range(10)))
    with running(line):
        eventually(line.finished)
    assert line.broker.lost_commits == 0
    assert line.seen() == Counter(images)


def test_a_silent_broker_is_rejoined(line: Line, eventually) -> None:
    line.broker.outages = 2
    images = line.send(*(texture(number) for number in range(4)))
    with running(line):
        eventually(line.finished)
        line.broker.outages = 2
        eventually(lambda: line.worker.waiting_for == "Kafka")
        assert line.worker.trouble() is None, "waiting for a server is no ill health"
        eventually(lambda: line.broker.outages == 0)
        images += line.send(*(texture(number) for number in range(4)))
        eventually(line.finished)
        eventually(lambda: line.worker.waiting_for == "")
    assert line.seen() == Counter(images)
    assert len(line.broker.sessions) == 2


def test_a_broker_that_goes_silent_in_a_commit_gets_the_batch_again(line: Line, eventually, monkeypatch) -> None:
    failures = iter([True, True])
    commit = MemorySession.commit

    def failing(self: MemorySession, *args: object) -> None:
        if next(failures, False):
            raise BrokerUnavailable("gone in the middle")
        commit(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(MemorySession, "commit", failing)
    images = line.send(*(texture(number) for number in range(10)))
    with running(line):
        eventually(line.finished)
    assert line.seen() == Counter(images)
    assert len(line.broker.sessions) == 3


@pytest.mark.parametrize("place", ["champion", "claim", "mask"])
def test_a_silent_store_is_waited_for_and_nothing_is_dropped(objects: dict, eventually, place: str) -> None:
    chosen = settings()
    if place == "mask":
        chosen = chosen.model_copy(update={"limits": chosen.limits.model_copy(update={"inline_bytes": 10})})
    line = Line(MemoryStore(objects=dict(objects)), chosen)
    image = texture(3, spot=True)
    if place == "claim":
        claim = claims.leave(line.store, image, "image/png").model_dump_json().encode()
        images = line.send(*[claim] * 3, content_type=CLAIM_CONTENT_TYPE)
    else:
        images = line.send(*[image] * 3)
    if place != "champion":
        line.inspector.champions.version(PRODUCT)  # in memory before the store goes
    line.store.outages = 1_000_000
    with running(line):
        eventually(lambda: line.worker.waiting_for == "S3")
        assert line.worker.trouble() is None
        assert line.broker.commits == 0
        line.store.outages = 0
        eventually(line.finished)
        eventually(lambda: line.worker.waiting_for == "")
    assert line.seen() == Counter(images)
    assert line.letters() == []


def test_partitions_pause_when_the_buffer_is_full_and_polling_goes_on(objects: dict, eventually) -> None:
    line = Line(MemoryStore(objects=dict(objects)), settings(buffer_bytes=1 << 20))
    padding = b"\0" * 300_000  # behind the image's end: decoders don't mind
    images = line.send(*(texture(number) + padding for number in range(12)))
    line.store.outages = 1_000_000
    polls = 0

    class Counting(MemorySession):
        def poll(self, timeout_s: float) -> list:
            nonlocal polls
            polls += 1
            return super().poll(timeout_s)

    def open_session() -> StreamSession:
        session = Counting(line.broker, IMAGES)
        line.broker.sessions.append(session)
        return session

    line.worker = StreamWorker(line.inspector, open_session)
    with running(line):
        eventually(lambda: line.broker.sessions and line.broker.sessions[0].paused)
        before = polls
        eventually(lambda: polls > before + 3, what="polls while paused")
        line.store.outages = 0
        eventually(line.finished)
        eventually(lambda: not line.broker.sessions[0].paused)
    assert line.seen() == Counter(images)


def test_a_partition_that_moves_in_mid_batch_is_neither_lost_nor_doubled(line: Line, eventually, monkeypatch) -> None:
    reached, go_on = threading.Event(), threading.Event()
    score = line.inspector.score

    def slow(*args: object) -> list:
        reached.set()
        assert go_on.wait(90)
        return score(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(line.inspector, "score", slow)
    images = line.send(*(texture(number) for number in range(8)))
    with running(line):
        assert reached.wait(90)
        line.broker.move_away(0)
        go_on.set()
        eventually(line.finished)
    assert line.seen() == Counter(images)
    assert Counter(event.source.partition for event in line.events()) == {0: 4, 1: 4}


def test_a_worker_that_lost_its_partitions_commits_nothing(line: Line, eventually, monkeypatch) -> None:
    reached, go_on = threading.Event(), threading.Event()
    score = line.inspector.score

    def slow(*args: object) -> list:
        reached.set()
        assert go_on.wait(90)
        return score(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(line.inspector, "score", slow)
    images = line.send(*(texture(number) for number in range(4)))
    with running(line):
        assert reached.wait(90)
        survivor = Line(line.store, settings())
        survivor.broker = line.broker
        with running(survivor):  # the newest member gets every partition
            eventually(survivor.finished)
            commits = line.broker.commits
            go_on.set()
            time.sleep(0.3)
            assert line.broker.commits == commits
    assert line.seen() == Counter(images)


def test_the_batch_in_hand_is_committed_before_the_end(line: Line, eventually, monkeypatch) -> None:
    reached = threading.Event()
    score = line.inspector.score

    def slow(*args: object) -> list:
        reached.set()
        time.sleep(0.3)
        return score(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(line.inspector, "score", slow)
    images = line.send(*(texture(number) for number in range(12)))
    with running(line):
        assert reached.wait(90)
    assert line.broker.sessions[0].closed
    done = line.seen()
    assert 4 <= len(done) < 12
    assert set(done.values()) == {1}
    assert sum(line.broker.committed.values()) == len(done), "offsets cover the finished ones and no other"
    successor = Line(line.store, settings())
    successor.broker = line.broker
    with running(successor):
        eventually(successor.finished)
    assert line.seen() == Counter(images)


def test_stopping_while_the_store_is_silent_does_not_hang(line: Line, eventually) -> None:
    line.send(texture(1))
    line.store.outages = 1_000_000
    with running(line):
        eventually(lambda: line.worker.waiting_for == "S3")
        begun = time.monotonic()
        line.worker.stop()
        assert time.monotonic() - begun < 25, "it waits no longer than 30 s for a thread that hangs"
    assert line.broker.commits == 0
    assert line.worker._thread
    assert not line.worker._thread.is_alive()


def test_an_image_whose_scoring_breaks_is_isolated(line: Line, eventually, monkeypatch) -> None:
    poison = line.inspector.read(texture(66), f"{PRODUCT}/{line.inspector.champions.version(PRODUCT)}")
    score = line.inspector.score

    def touchy(frames, keys):
        if any((frame.pixels == poison.pixels).all() for frame in frames):
            raise RuntimeError("CUDA error: something")
        return score(frames, keys)

    monkeypatch.setattr(line.inspector, "score", touchy)
    images = line.send(texture(1), texture(2), texture(66), texture(3), texture(4))
    with running(line):
        eventually(line.finished)
    assert line.letters() == [(images[2], "InspectionFailed")]
    assert line.seen() == Counter(images[:2] + images[3:])


def test_a_model_that_cannot_be_loaded_is_its_own_products_trouble(line: Line, tiny_bundle, eventually) -> None:
    publish(line.store, tiny_bundle, "cap")
    publish(line.store, tiny_bundle, "lid")
    line.store.objects["models/cap/aliases/champion.json"] = b"{}"
    for key in list(line.store.objects):
        if key.startswith("models/lid/") and key.endswith(".safetensors"):
            line.store.objects[key] = b"damaged"
    cap, lid = line.send(texture(1), product="cap"), line.send(texture(2), product="lid")
    images = line.send(texture(3), texture(4))
    with running(line):
        eventually(line.finished)
    assert line.letters() == [(cap[0], "ModelBroken"), (lid[0], "ModelBroken")]
    assert line.seen() == Counter(images)


def test_a_batch_that_hangs_silences_the_heartbeat(objects: dict, eventually, monkeypatch) -> None:
    line = Line(MemoryStore(objects=dict(objects)), settings(heartbeat_timeout_s=0.5))
    line.inspector.champions.version(PRODUCT)
    release = threading.Event()
    monkeypatch.setattr(line.inspector, "score", lambda *_: release.wait(90) and [])
    line.send(texture(1))
    with running(line):
        try:
            assert line.worker.trouble() is None
            eventually(lambda: "no heartbeat" in (line.worker.trouble() or ""), within_s=60)
        finally:
            release.set()


def test_a_thread_that_ended_by_itself_is_trouble(line: Line, eventually, monkeypatch) -> None:
    monkeypatch.setattr(line.worker, "run", lambda: None)
    line.worker.start()
    eventually(lambda: line.worker.trouble() == "the worker's thread has ended")
    line.worker.stop()
    assert line.worker.trouble() is None  # told to end, it may


def test_a_fault_of_ours_does_not_end_the_line(line: Line, eventually, caplog) -> None:
    opened = iter([True])

    def faulty() -> StreamSession:
        if next(opened, False):
            raise ZeroDivisionError("a bug")
        return line.broker.session(IMAGES)

    line.worker = StreamWorker(line.inspector, faulty)
    images = line.send(texture(1))
    with running(line):
        eventually(line.finished)
    assert line.seen() == Counter(images)
    assert "the worker failed" in caplog.text


def test_delays_double_up_to_a_limit() -> None:
    delays = [delay for delay, _ in zip(backoff(), range(12), strict=False)]
    assert 0.05 <= delays[0] <= 0.15
    assert all(2.5 <= delay <= 7.5 for delay in delays[-3:])


def test_offsets_only_ever_cover_what_was_published(line: Line, eventually, monkeypatch) -> None:
    """At every commit, the events and dead letters so far are those of the committed prefix."""
    commit = MemorySession.commit
    checks: list[Callable[[], bool]] = []

    def watched(self: MemorySession, outgoing, finished) -> None:
        commit(self, outgoing, finished)
        published = len(line.broker.read(EVENTS)) + len(line.broker.read(LETTERS))
        covered = sum(line.broker.committed.values())
        checks.append(lambda: published == covered)

    monkeypatch.setattr(MemorySession, "commit", watched)
    line.broker.lost_commits = 1
    line.send(*(texture(number) if number % 4 else b"" for number in range(10)))
    with running(line):
        eventually(line.finished)
    assert checks
    assert all(check() for check in checks)


def test_a_record_of_an_old_lease_is_not_committed(objects: dict) -> None:
    line = Line(MemoryStore(objects=dict(objects)), settings())
    line.send(texture(1))
    session = line.broker.session(IMAGES)
    (record,) = session.poll(0)
    assert session.owns(record)
    line.broker.move_away(record.partition)
    assert not session.owns(record)
    (again,) = session.poll(0)
    assert replace(again, lease=record.lease) == record


def test_faults_in_a_row_are_trouble_until_something_is_committed(line: Line, eventually) -> None:
    broken = threading.Event()
    broken.set()

    def faulty() -> StreamSession:
        if broken.is_set():
            raise ZeroDivisionError("a bug")
        return line.broker.session(IMAGES)

    line.worker = StreamWorker(line.inspector, faulty)
    line.send(texture(1))
    with running(line):
        eventually(lambda: "faults in a row" in (line.worker.trouble() or ""), within_s=60)
        broken.clear()
        eventually(line.finished, within_s=60)
        assert line.worker.trouble() is None
