"""From a real Kafka into SQL, exactly once: whatever dies in between."""

import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import NewPartitions
from sqlalchemy import select

from pipeline.contracts.broker import Outgoing
from pipeline.contracts.events import InspectionEvent
from pipeline.history import Following, History, Query, events, throw_away
from pipeline.history.tables import CONTENTS, unread
from pipeline.kafka.clients import admin_client, make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.pipeline.history.messages import inspected, of_event, of_letter, of_release

pytestmark = pytest.mark.servers
KILLS, EVENTS = 20, 20_000


def settings_of(plant: Plant, url: str) -> Settings:
    settings = plant.settings(history={"url": url})
    ensure_topics(settings)
    return settings


def send(settings: Settings, messages: list[Outgoing], *, transaction: bool = False, commit: bool = True) -> None:
    options = {"transactional_id": f"test-{time.monotonic_ns()}"} if transaction else {}
    producer = make_producer(settings, linger_ms=5, **options)
    if transaction:
        producer.init_transactions()
        producer.begin_transaction()
    for message in messages:
        producer.send(message.topic, key=message.key, value=message.value, headers=list(message.headers))
    producer.flush(timeout=60)
    if transaction:
        (producer.commit_transaction if commit else producer.abort_transaction)()
    producer.close(timeout=10)


def said(settings: Settings, numbers: range) -> list[InspectionEvent]:
    return [inspected(number, settings) for number in numbers]


def sent(settings: Settings, numbers: range, **how: bool) -> None:
    send(settings, [of_event(event, settings) for event in said(settings, numbers)], **how)


def follow(settings: Settings, history: History) -> list[str]:
    told: list[str] = []
    Following(settings, history, told.append).run(threading.Event(), once=True)
    return told


@contextmanager
def followed(settings: Settings) -> Iterator[Following]:
    """One in a thread, with a database connection of its own."""
    stop = threading.Event()
    with History(settings) as history:
        following = Following(settings, history)
        thread = threading.Thread(target=following.run, args=[stop])
        thread.start()
        try:
            yield following
        finally:
            stop.set()
            thread.join(30)


def contents(history: History) -> dict[str, set[Any]]:
    """All that follows from the topics, whole."""
    with history.reads() as connection:
        return {table.name: {tuple(row) for row in connection.execute(select(table)).all()} for table in CONTENTS}


def test_what_is_committed_is_kept_once_and_what_is_aborted_never(apache: Plant, url: str) -> None:
    settings = settings_of(apache, url)
    sent(settings, range(50), transaction=True)
    sent(settings, range(50, 60), transaction=True, commit=False)
    foreign = Outgoing(settings.topics.releases, b"cap", b'{"product": "cap", "version": "x"}')
    send(settings, [of_letter(settings, 70), of_release(settings, "cap"), foreign])
    with History(settings) as history:
        assert not follow(settings, history)
        assert {row["image_id"] for row in events(history, Query())} == {f"image-{n}" for n in range(50)}
        sizes = history.sizes()
        assert (sizes["deadletters"], sizes["unread"]) == (1, 1), "a version that can't be one is told"
        assert sizes["releases"] == 1
        sent(settings, range(60, 70), transaction=True)
        follow(settings, history)
        assert history.sizes()["events"] == 60


def test_a_history_that_is_thrown_away_is_rebuilt_row_by_row(apache: Plant, url: str) -> None:
    settings = settings_of(apache, url)
    sent(settings, range(300))
    sent(settings, range(40), transaction=True)  # again
    send(settings, [of_letter(settings, n) for n in range(5)])
    send(settings, [Outgoing(settings.topics.events, b"/cam", b"{}"), of_release(settings, "cap")])
    with History(settings) as history:
        follow(settings, history)
        before, copies = contents(history), history.copies()
        assert (len(before["events"]), copies) == (300, 40)
    throw_away(settings)
    with History(settings) as history:
        follow(settings, history)
        assert contents(history) == before
        assert history.copies() == copies


def die_while_following(values: dict[str, Any], environment: dict[str, str]) -> None:
    import os

    os.environ.update(environment)
    settings = Settings.received(values)
    with History(settings) as history:
        Following(settings, history, at_once=50).run(threading.Event())


def read_to(history: History) -> int:
    return sum(position.next for position in history.positions().values())


@pytest.mark.timeout(600)
def test_kill_9_of_a_follower_loses_nothing_and_doubles_nothing(
    apache: Plant, url: str, eventually: Callable[..., None]
) -> None:
    settings = settings_of(apache, url)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.history"])
    secrets = {
        f"LINEWATCH_S3__{name}".upper(): getattr(settings.s3, name).get_secret_value()
        for name in ("access_key", "secret_key")
    }
    seeded, moved, each = random.Random(0), [], EVENTS // KILLS
    with History(settings) as history:
        for number in range(KILLS):
            mine = range(number * each, (number + 1) * each)
            camera = threading.Thread(target=sent, args=[settings, mine], kwargs={"transaction": True})
            process = context.Process(target=die_while_following, args=[settings.public(), secrets], daemon=True)
            before = read_to(history)
            camera.start()
            process.start()
            try:  # it is at work: killed some way into it
                eventually(lambda b=before: read_to(history) > b)
                time.sleep(seeded.uniform(0, 0.3))
            finally:
                process.kill()
                process.join()
                camera.join()
            moved.append(read_to(history) - before)
        follow(settings, history)
        rows = list(events(history, Query()))
        assert len(rows) == len({row["event_id"] for row in rows}) == EVENTS
        assert history.copies() == 0
        assert history.sizes()["unread"] == 0
    print(f"\n{KILLS} kills, after {min(moved)} to {max(moved)} offsets each")  # noqa: T201


def test_two_followers_of_one_database_write_each_event_once(apache: Plant, url: str) -> None:
    settings = settings_of(apache, url)
    with followed(settings), followed(settings):
        for n in range(0, 2000, 200):
            sent(settings, range(n, n + 200), transaction=True)
        with History(settings) as history:
            follow(settings, history)
            assert history.sizes()["events"] == 2000
            assert history.copies() == 0


def test_what_the_broker_deleted_first_is_told(apache: Plant, url: str) -> None:
    settings = settings_of(apache, url)
    topic = settings.topics.events
    sent(settings, range(100))
    with admin_client(settings) as admin:
        from kafka import TopicPartition

        ends = end_offsets(settings, topic)
        admin.delete_records({TopicPartition(topic, number): end // 2 for number, end in ends.items()})
    with History(settings) as history:
        follow(settings, history)
        gone = sum(end // 2 for end in ends.values())
        assert history.sizes()["events"] == 100 - gone
        with history.reads() as connection:
            rows = connection.execute(select(unread)).all()
        assert sum(row.messages for row in rows) == gone
        assert all("the broker deleted" in row.why for row in rows)
        with admin_client(settings) as admin:
            admin.delete_records({TopicPartition(topic, number): end for number, end in ends.items()})
        sent(settings, range(200, 260))
        follow(settings, history)
        assert history.sizes()["events"] == 100 - gone + 60, "what was read before it was deleted is no gap"


def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    from kafka import TopicPartition

    from pipeline.kafka.clients import make_consumer

    consumer = make_consumer(settings)
    places = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    found = {tp.partition: offset for tp, offset in consumer.end_offsets(places).items()}
    consumer.close()
    return found


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(apache: Plant, url: str) -> None:
    settings = settings_of(apache, url)
    topic = settings.topics.events
    sent(settings, range(100))
    with History(settings) as history:
        follow(settings, history)
        with admin_client(settings) as admin:
            admin.delete_topics([topic])
            wait_for(lambda: topic not in admin.list_topics())
        wait_for(lambda: topic in ensure_topics(settings))
        sent(settings, range(100, 350))  # more than there were: their offsets alone tell nothing
        told = follow(settings, history)
        assert any("was made anew" in line for line in told)
        assert history.sizes()["events"] == 350


def wait_for(holds: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_new_partitions_are_read_too(
    apache: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    monkeypatch.setattr("pipeline.history.following.LOOK_S", 1.0)
    settings = settings_of(apache, f"sqlite:///{tmp_path}/history.db")
    with followed(settings) as following:
        sent(settings, range(20))
        eventually(lambda: following.read == 20)
        with admin_client(settings) as admin:
            admin.create_partitions({settings.topics.events: NewPartitions(5)})
        wait_for(lambda: len(end_offsets(settings, settings.topics.events)) == 5)
        cameras = [inspected(n, settings, camera=f"/plant/line1/cam{n}") for n in range(100, 160)]
        send(settings, [of_event(event, settings) for event in cameras])
        eventually(lambda: following.read == 80)
        eventually(lambda: following.lag == 0)
    with History(settings) as history:
        kept = list(events(history, Query()))
    assert {row["event_id"] for row in kept} >= {event.event_id for event in cameras}
    assert (len(kept), {row["partition"] for row in kept}) == (80, set(range(5)))


def test_without_topics_it_waits_and_says_so(apache: Plant, tmp_path: Path, eventually: Callable[..., None]) -> None:
    settings = apache.settings(history={"url": f"sqlite:///{tmp_path}/history.db"})
    with followed(settings) as following:
        eventually(lambda: "linewatch setup" in (following.trouble or ""))
        ensure_topics(settings)
        sent(settings, range(5))
        eventually(lambda: following.read == 5 and following.trouble is None)
    with History(settings) as history:
        assert {row["image_id"] for row in events(history, Query())} == {f"image-{n}" for n in range(5)}


def test_the_fallback_broker_is_followed_too(tansu: Plant, tmp_path: Path) -> None:
    settings = settings_of(tansu, f"sqlite:///{tmp_path}/history.db")
    sent(settings, range(40))
    send(settings, [of_letter(settings, 1)])
    with History(settings) as history:
        follow(settings, history)
        sent(settings, range(30, 60))
        follow(settings, history)
        assert history.sizes()["events"] == 60
        assert history.copies() == 10
        assert history.sizes()["deadletters"] == 1


def test_a_topic_that_is_made_anew_meanwhile_is_gone_on_with(
    apache: Plant, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    settings = settings_of(apache, f"sqlite:///{tmp_path}/history.db")
    topic = settings.topics.events
    sent(settings, range(100))
    with followed(settings) as following, History(settings) as history:
        eventually(lambda: following.read == 100)
        with admin_client(settings) as admin:
            admin.delete_topics([topic])
            wait_for(lambda: topic not in admin.list_topics())
        wait_for(lambda: topic in ensure_topics(settings))
        sent(settings, range(100, 120))  # fewer than there were: what is read next is not there
        eventually(lambda: history.sizes()["events"] == 120, within_s=120)
        assert history.sizes()["unread"] >= 1
