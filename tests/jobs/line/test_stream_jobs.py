"""Cameras, followers and dead letters on real brokers: each message once, and nothing that was not committed."""

import io
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.cli import main
from jobs.fitting.release import announce
from jobs.line.follow import Follower, event_of, picture_of
from jobs.line.letters import pending_letters, replay_letters
from jobs.line.replay import Camera, replay
from pipeline.contracts.broker import Record
from pipeline.contracts.deadletters import dead_letter
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, Release
from pipeline.errors import BrokerUnavailable, ImageBroken, NameRefused, ProductUnknown
from pipeline.fakes import MemoryStore
from pipeline.kafka.capabilities import probe
from pipeline.kafka.clients import make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.registry import Champion
from pipeline.stream.intake import captured
from pipeline.stream.output import output_messages
from tests.conftest import Plant
from tests.pipeline.stream.test_output import inspected
from tests.pipeline.tiny import envelope, texture

VERSION = "20260101T000000Z-0123abcd"
pytestmark = pytest.mark.servers
both = pytest.mark.parametrize("plant", [pytest.param("apache", marks=pytest.mark.apache), "tansu"], indirect=True)


@pytest.fixture
def plant(request: pytest.FixtureRequest) -> Plant:
    found: Plant = request.getfixturevalue(request.param)
    return found


def prepared(plant: Plant, **sections: dict) -> Settings:
    settings = plant.settings(**sections)
    ensure_topics(settings)
    return settings


def send(settings: Settings, messages: list) -> None:
    producer = make_producer(settings)
    for message in messages:
        headers = list(message.headers)
        producer.send(message.topic, key=message.key, value=message.value, headers=headers).get(timeout=15)
    producer.close()


def read(settings: Settings, topic: str) -> list[Record]:
    with Follower(settings, topic, from_beginning=True) as follower:
        return follower.rest()


def photographs(count: int, folder: str = "photos") -> list[Path]:
    Path(folder).mkdir()
    paths = [Path(folder) / f"{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(texture(number))
    return paths


def as_environment(settings: Settings, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the command line: the same settings, told as an operator tells them."""
    for name, value in plant.servers.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LINEWATCH_TOPICS__PREFIX", settings.topics.prefix)
    monkeypatch.setenv("LINEWATCH_KAFKA__GROUP", settings.kafka.group)
    monkeypatch.setenv("LINEWATCH_S3__BUCKET", settings.s3.bucket)


@both
def test_a_camera_sends_each_image_once_small_ones_inline_and_large_ones_as_claims(plant: Plant) -> None:
    settings = prepared(plant, limits={"inline_bytes": 20_000})
    store = plant.store(settings)
    small, large = photographs(2)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(large)
    shots = replay(settings, store, [small, large], product="bottle", camera="/plant/cam1", fps=200)
    records = read(settings, settings.topics.images)
    assert len(records) == 2
    found = {one.envelope.id: one for one in (captured(record, store, settings.limits) for record in records)}
    for shot in shots:
        one = found[shot.image_id]
        assert one.data == shot.path.read_bytes()
        assert (one.envelope.subject, one.envelope.source, one.record.key) == ("bottle", "/plant/cam1", b"/plant/cam1")
        assert one.envelope.time == shot.captured
        assert (one.envelope.content_type == CLAIM_CONTENT_TYPE) == (shot.path == large)
        assert one.envelope.traceparent


@pytest.mark.apache
def test_a_replay_loops_until_it_is_stopped(apache: Plant) -> None:
    settings = prepared(apache)
    stop, seen = threading.Event(), []

    def on_shot(shot) -> None:
        seen.append(shot.image_id)
        if len(seen) == 7:
            stop.set()

    paths = photographs(3)
    sent = replay(
        settings,
        apache.store(settings),
        paths,
        product="bottle",
        camera="cam",
        fps=500,
        loop=True,
        stop=stop,
        on_shot=on_shot,
    )
    assert sent == []
    assert len(set(seen)) == 7
    assert len(read(settings, settings.topics.images)) == 7


@pytest.mark.alone
@pytest.mark.apache
def test_a_camera_keeps_its_rate(apache: Plant) -> None:
    settings = prepared(apache)
    times = []
    replay(
        settings,
        apache.store(settings),
        photographs(6),
        product="bottle",
        camera="cam",
        fps=20,
        on_shot=lambda _: times.append(time.monotonic()),
    )
    assert times[-1] - times[0] == pytest.approx(5 / 20, abs=0.2)


@pytest.mark.apache
def test_a_camera_with_an_impossible_name_sends_nothing(apache: Plant) -> None:
    settings = prepared(apache)
    for product, camera in (("../bottle", "cam"), ("bottle", "/plant/../cam")):
        with pytest.raises(NameRefused):
            Camera(settings, apache.store(settings), product=product, camera=camera)


@both
def test_a_follower_reads_events_and_fetches_large_masks(plant: Plant) -> None:
    settings = prepared(plant, limits={"inline_bytes": 10}, stream={"heat_maps": "always"})
    store = plant.store(settings)
    send(settings, output_messages(inspected(), settings, store))
    (event,) = [event_of(record) for record in read(settings, settings.topics.events)]
    pictures = {
        kind: (identifier, png)
        for identifier, kind, png in (
            picture_of(record, store, settings) for record in read(settings, settings.topics.masks)
        )
    }
    assert set(pictures) == {"mask", "heat"}
    assert {identifier for identifier, _ in pictures.values()} == {event.event_id}
    assert np.asarray(Image.open(io.BytesIO(pictures["mask"][1]))).shape == (event.height, event.width)


@both
def test_a_follower_from_now_on_sees_only_what_comes(plant: Plant) -> None:
    settings = prepared(plant)
    store = plant.store(settings)
    (event,) = [m for m in output_messages(inspected(), settings, store) if m.topic == settings.topics.events]
    send(settings, [event])
    with Follower(settings, settings.topics.events, from_beginning=False) as follower:
        assert follower.poll(0.3) == []
        send(settings, [event, event])
        assert len(follower.rest(quiet_s=1.5)) == 2


def test_following_a_topic_that_is_not_there_says_how_to_make_it(tansu: Plant, monkeypatch) -> None:
    ticks = iter(range(0, 10_000, 6))
    monkeypatch.setattr("jobs.line.follow.time", SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda _: None))
    with pytest.raises(BrokerUnavailable, match="linewatch setup"):
        Follower(tansu.settings(), "never-made", from_beginning=True)


@both
def test_dead_letters_are_listed_and_sent_again_each_exactly_once(plant: Plant) -> None:
    settings = prepared(plant)
    topic = settings.topics.images
    originals = [
        Record(topic, 0, number, b"/plant/cam1", b"x%d" % number, envelope(f"img-{number}").headers(), 0)
        for number in range(3)
    ]
    odd = Record(topic, 1, 9, None, b"no key", (("note", b""),), 0)
    letters = settings.topics.deadletters
    send(settings, [dead_letter(one, ProductUnknown("no model"), letters) for one in (*originals, odd)])
    send(settings, [dead_letter(originals[0], ImageBroken("UnreadableImage", "cut"), letters)])

    found = pending_letters(settings)
    assert Counter(letter.error_class for letter in found) == {"ProductUnknown": 4, "UnreadableImage": 1}
    chosen = pending_letters(settings, "ProductUnknown")
    assert replay_letters(settings, chosen, MemoryStore(), exactly_once=probe(settings).aborts_hidden) == 4
    again = read(settings, topic)
    assert sorted(record.value for record in again) == [b"no key", b"x0", b"x1", b"x2"]
    whole = {record.value: (record.key, record.headers) for record in again}
    assert whole[b"x1"] == (originals[1].key, originals[1].headers)
    assert whole[b"no key"] == (None, odd.headers)
    assert pending_letters(settings, "ProductUnknown") == []
    assert [letter.error_class for letter in pending_letters(settings)] == ["UnreadableImage"]
    assert replay_letters(settings, [], MemoryStore(), exactly_once=False) == 0


@pytest.mark.apache
def test_dead_letters_are_handled_from_the_command_line(apache: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = prepared(apache)
    original = Record(settings.topics.images, 0, 0, b"/plant/cam1", b"x", envelope("img-0").headers(), 0)
    send(settings, [dead_letter(original, ImageBroken("UnreadableImage", "cut"), settings.topics.deadletters)])
    as_environment(settings, apache, monkeypatch)
    listed = CliRunner().invoke(main, ["deadletters", "list"])
    assert listed.exit_code == 0, listed.output
    assert "UnreadableImage" in listed.output
    assert "img-0" in listed.output
    assert "1 dead letters" in listed.output
    sent = CliRunner().invoke(main, ["deadletters", "replay", "--yes", "--class", "UnreadableImage"])
    assert "1 messages sent again" in sent.output
    assert CliRunner().invoke(main, ["deadletters", "replay", "--yes"]).output.strip() == "no dead letters"
    assert len(read(settings, settings.topics.images)) == 1


@pytest.mark.apache
def test_the_commands_of_a_first_hour_work_on_real_servers(apache: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = apache.settings()
    as_environment(settings, apache, monkeypatch)
    photographs(3)
    run = CliRunner()

    def told(*arguments: str) -> str:
        result = run.invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    first = told("setup")
    assert "exactly once" in first
    assert "all there already" in told("setup")
    assert "3 new, 0 known" in told("ingest", "photos", "--product", "bottle")
    assert "0 new, 3 known" in told("ingest", "photos", "-p", "bottle")
    assert "no versions" in told("models", "list")
    assert "3 images sent" in told("replay", "photos", "--product", "bottle", "--fps", "200")
    assert len(read(settings, settings.topics.images)) == 3
    send(settings, output_messages(inspected(), settings, apache.store(settings)))
    assert "img-1" in told("events", "--no-follow")
    assert told("events", "--no-follow", "--verdict", "OK") == ""
    assert '"image_id":"img-1"' in told("events", "--no-follow", "--json", "--product", "bottle")
    for arguments in (
        ["models", "show", "bottle"],
        ["score", "photos/000.png", "-p", "bottle"],
        ["evaluate", "-p", "bottle"],
    ):
        result = run.invoke(main, arguments)
        assert result.exit_code == 1
        assert result.output.startswith("Error: product 'bottle' has no champion model")
    result = run.invoke(main, ["models", "promote", "bottle", "20200101T000000Z-00000000"])
    assert (result.exit_code, "has no version" in result.output) == (1, True)


@both
def test_a_release_is_announced_although_no_topic_was_made_yet(plant: Plant) -> None:
    """A first fit comes before the first `serve`, which would make the topics."""
    settings = plant.settings()
    champion = Champion(product="bottle", version=VERSION, promoted_at=datetime.now(UTC), reason="passed the gate")
    announce(settings, champion, replaced=None)
    (record,) = read(settings, settings.topics.releases)
    assert Release.model_validate_json(record.value or b"").version == VERSION


@both
def test_what_is_there_is_read_while_more_comes_all_the_time(plant: Plant) -> None:
    """It waited for a silence that did not come while letters did."""
    settings = plant.settings()
    ensure_topics(settings)
    stop = threading.Event()

    def send_on() -> None:
        with closing(make_producer(settings)) as producer:
            while not stop.wait(0.05):
                producer.send(settings.topics.deadletters, b"x", headers=[("dlq.replayed.offset", b"0:1")])

    with closing(make_producer(settings)) as producer:
        for number in range(30):
            producer.send(settings.topics.deadletters, b"%d" % number)
        producer.flush(timeout=30)
    sender = threading.Thread(target=send_on)
    sender.start()
    try:
        begun = time.monotonic()
        with Follower(settings, settings.topics.deadletters, from_beginning=True) as follower:
            found = follower.rest(quiet_s=30)
        took_s = time.monotonic() - begun
    finally:
        stop.set()
        sender.join()
    assert [record.value for record in found][:30] == [b"%d" % number for number in range(30)]
    assert took_s < 25
