"""Past images through another version: beside the live stream, once each, and compared with what was said then."""

import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from kafka import KafkaProducer
from kafka.errors import KafkaError
from PIL import Image

from jobs.cli import main
from jobs.past.rescore import Pace, inspect
from jobs.past.rescore_topic import RescoreTopic, TopicRefused, led_to
from jobs.past.retained import Past
from model import Frame, ModelBundle, Scored
from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, event_id
from pipeline.errors import BrokerError, NameRefused, StoreUnavailable, UnknownVersion
from pipeline.fakes import MemoryStore
from pipeline.kafka.clients import admin_client, make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage import claims
from pipeline.stream.inspector import Inspector
from pipeline.stream.steps import Work
from tests.jobs.inspected_line import GOOD, SPOTS, InspectedLine
from tests.jobs.line.test_stream_jobs import as_environment
from tests.pipeline.tiny import message, publish, texture

apache_only = pytest.mark.parametrize("line", [pytest.param("apache", marks=pytest.mark.apache)], indirect=True)
both = pytest.mark.parametrize("line", [pytest.param("apache", marks=pytest.mark.apache), "tansu"], indirect=True)


# Without servers


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 0.0, []  # type: ignore[var-annotated]

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_pace_spreads_images_over_time_and_does_not_catch_up() -> None:
    clock = Clock()
    pace = Pace(4.0, lambda: clock.now, clock.sleep)
    pace.spend(4)
    pace.spend(4)
    assert clock.slept == [1.0], "the first at once, the second a second later"
    clock.now += 10  # a slow batch
    pace.spend(4)
    pace.spend(4)
    assert clock.slept == [1.0, 1.0]


def test_a_batch_is_a_seconds_worth_and_no_rate_is_no_limit() -> None:
    assert (Pace(4).batch(16), Pace(100).batch(16), Pace(0.5).batch(16), Pace(0).batch(16)) == (4, 16, 1, 16)
    clock = Clock()
    Pace(0, lambda: clock.now, clock.sleep).spend(1000)
    assert clock.slept == []


@pytest.mark.parametrize("topic", ["linewatch.events", "linewatch.images", "linewatch.deadletters", "linewatch"])
def test_a_live_topic_is_no_topic_for_a_rescore(topic: str) -> None:
    """``linewatch`` is none either: its masks would be those of the live stream."""
    with pytest.raises(NameRefused, match="is a topic of the live stream"):
        led_to(Settings.from_values({}), topic)


@pytest.mark.parametrize("topic", ["", ".", "a b", "a/b", "linewatch_events", "x" * 201, "a\n"])
def test_what_can_name_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(NameRefused, match="can't name a topic"):
        led_to(Settings.from_values({}), topic)


def test_events_and_masks_go_to_the_topic_and_the_one_beside_it() -> None:
    topics = led_to(Settings.from_values({}), "linewatch.rescore.bottle").topics
    assert (topics.events, topics.masks) == ("linewatch.rescore.bottle", "linewatch.rescore.bottle.masks")
    assert topics.images == "linewatch.images"


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code != 0, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_wrong_command_says_what_is_wrong_before_any_server_is_asked() -> None:
    asked = ["rescore", "-p", "bottle", "-v", "20260101T000000Z-0123abcd", "--to", "x"]
    assert "is no moment" in refused(*asked, "--since", "lately")
    assert "is not after --since" in refused(*asked, "--since", "1h", "--until", "2h")
    assert "is a topic of the live stream" in refused(*asked[:-1], "linewatch.events", "--since", "1h")


def record(offset: int, value: bytes, **changes: object) -> Record:
    sent = message(f"img-{offset}", value, **changes)
    return Record("linewatch.images", 0, offset, sent.key, sent.value, sent.headers, 0)


def test_what_cannot_be_inspected_is_named_and_the_rest_goes_on(
    tiny_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    version = publish(store, tiny_bundle)
    large = texture(7)
    claim = claims.leave(store, large, "image/png").model_dump_json().encode()
    settings = led_to(Settings.from_values({"engine": {"device": "cpu", "threads": 1}}), "x")
    inspector = Inspector(settings, store)
    honest = inspector.score

    def score(frames: list[Frame], keys: list[str]) -> list[Scored]:
        if any(frame.width != 96 for frame in frames):
            raise RuntimeError("no kernel for this")
        return honest(frames, keys)

    monkeypatch.setattr(inspector, "score", score)
    odd = io.BytesIO()
    Image.new("RGB", (40, 40)).save(odd, "PNG")
    works = [
        Work(record(0, texture(1))),
        Work(record(1, b"no image")),
        Work(record(2, odd.getvalue())),
        Work(record(3, claim, content_type=CLAIM_CONTENT_TYPE)),
        Work(record(4, claim.replace(b"/images/", b"/models/"), content_type=CLAIM_CONTENT_TYPE)),
        Work(record(5, texture(1), camera="no path")),
    ]
    with ThreadPoolExecutor(2) as pool:
        inspect(works, inspector, version, pool)
    assert {work.record.offset: work.error.error_class for work in works if work.error} == {
        1: "UnsupportedFormat",
        2: "InspectionFailed",
        4: "ClaimRefused",
        5: "HeadersRefused",
    }
    done = [work for work in works if not work.error]
    assert [[one.topic for one in work.messages] for work in done] == [["x.masks", "x"]] * 2
    alone = honest([inspector.read(large, f"bottle/{version}")], [f"bottle/{version}"])[0]
    assert _score(done[1]) == pytest.approx(alone.normalised_score, rel=1e-4)
    store.outages = 100
    with ThreadPoolExecutor(2) as pool, pytest.raises(StoreUnavailable):
        inspect([Work(record(3, claim, content_type=CLAIM_CONTENT_TYPE))], inspector, version, pool)


def _score(work: Work) -> float:
    assert work.scored
    return work.scored.normalised_score


# On real servers: a line that has inspected its images, and a second version


@pytest.mark.servers
@both
def test_past_images_are_scored_once_by_the_other_version_and_compared(line: InspectedLine) -> None:
    before = line.live()
    report = line.rescore("everything")
    events = line.events("everything")
    assert Counter(event.image_id for event in events) == Counter(f"img-{n:02d}" for n in range(GOOD))
    for event in events:
        assert event.event_id == event_id(event.image_id, line.second)
        assert (event.model_version, event.mask.topic) == (line.second, "everything.masks")
        assert event.source == before[event.image_id].source
        assert event.score == pytest.approx(before[event.image_id].score, rel=1e-4)
    masks = {dict(record.headers)["ce_id"].decode() for record in line.read("everything.masks")}
    assert masks == {f"{event.event_id}-mask" for event in events}
    assert line.live() == before, "the live topics are as they were"
    assert (report.scored, report.there_already, report.refused_classes) == (GOOD, 0, {"UnsupportedFormat": 1})

    found = report.comparison
    assert found
    assert (found.compared, found.without_live_event, found.versions_before) == (GOOD, 0, {line.first: GOOD})
    assert found.verdicts["NotOK"]["NotOK"] >= SPOTS
    assert {one.image_id for one in found.most_changed[:SPOTS]} == {f"img-{n:02d}" for n in range(SPOTS)}
    for change in found.most_changed:
        assert change.score_after == pytest.approx(2 * change.score_before, rel=1e-3)

    again = line.rescore("everything")
    assert (again.scored, again.there_already, again.comparison) == (0, GOOD, found)
    assert len(line.events("everything")) == GOOD


@pytest.mark.servers
@both
def test_a_window_takes_the_images_of_its_time(line: InspectedLine) -> None:
    assert line.rescore("early", until=line.begun - timedelta(minutes=1)).images == 0
    assert line.rescore("late", since=datetime.now(UTC)).images == 0
    images = line.settings.topics.images
    with Past(line.settings, images, exact=line.broker.exact) as past:
        records = [record for batch in past.batches() for record in batch]
        assert past.progress == (len(records), GOOD + 2)
    middle = datetime.fromtimestamp(sorted(record.timestamp_ms for record in records)[GOOD // 2] / 1000, UTC)
    halves = [
        Past(line.settings, images, exact=line.broker.exact, **window)
        for window in ({"until": middle}, {"since": middle})
    ]
    found: list[tuple[int, int]] = []
    for half in halves:
        with half:
            taken = [(record.partition, record.offset) for batch in half.batches() for record in batch]
            assert 0 < len(taken) < len(records)
            found += taken
    assert sorted(found) == sorted((record.partition, record.offset) for record in records)


@pytest.mark.servers
@apache_only
def test_a_rescore_that_dies_in_mid_transaction_goes_on_and_doubles_nothing(
    line: InspectedLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, commits = KafkaProducer.commit_transaction, []

    def dies(producer: KafkaProducer) -> None:
        commits.append(1)
        if len(commits) == 2:
            raise KafkaError("killed before the commit")
        honest(producer)

    with monkeypatch.context() as patch:
        patch.setattr(KafkaProducer, "commit_transaction", dies)
        with pytest.raises(BrokerError, match="run it again: it goes on"):
            line.rescore("killed")
    report = line.rescore("killed")
    assert report.there_already >= 1
    assert report.scored + report.there_already == GOOD
    for topic in ("killed", "killed.masks"):
        ids = Counter(dict(record.headers)["ce_id"] for record in line.read(topic))
        assert len(ids) == ids.total() == GOOD


@pytest.mark.servers
@apache_only
def test_a_second_run_takes_over_from_one_that_goes_on(line: InspectedLine) -> None:
    led = led_to(line.settings, "contested")
    with RescoreTopic(led, "bottle", line.second, line.broker) as first:
        report = line.rescore("contested")
        with pytest.raises(BrokerError, match="other run of the same rescore took over"):
            first.publish([Outgoing("contested", b"k", b"x")])
    assert report.scored == len(line.events("contested")) == GOOD


@pytest.mark.servers
@apache_only
def test_a_topic_with_other_things_on_it_and_a_version_that_is_not_there_are_refused(line: InspectedLine) -> None:
    with closing(make_producer(line.settings)) as producer, admin_client(line.settings) as admin:
        ensure_topics(led_to(line.settings, "orders"), only=("orders",))
        producer.send("orders", b"{}").get(timeout=15)
        with pytest.raises(TopicRefused, match="orders is no topic of a rescore: its message at"):
            line.rescore("orders")
        with pytest.raises(UnknownVersion):
            line.rescore("never", version="20200101T000000Z-00000000")
        assert "never" not in admin.list_topics()


@pytest.mark.servers
@apache_only
def test_the_command_line_tells_what_another_version_changes(
    line: InspectedLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_environment(line.settings, line.plant, monkeypatch)
    monkeypatch.setenv("LINEWATCH_ENGINE__THREADS", "1")
    monkeypatch.setenv("LINEWATCH_ENGINE__DEVICE", "cpu")
    run = CliRunner()
    asked = ["rescore", "-p", "bottle", "-v", line.second, "--since", "1h", "--to", "told", "--rate", "0"]
    told = run.invoke(main, [*asked, "--json", "report.json", "--most", "3"])
    assert told.exit_code == 0, told.output
    for text in (f"{GOOD} scored, 0 there already, 1 not inspected", "UnsupportedFormat", "Most changed", line.first):
        assert text in told.output
    facts = json.loads(Path("report.json").read_text())
    assert (facts["images"], facts["scored"], facts["topic"], facts["masks_topic"]) == (13, 12, "told", "told.masks")
    assert (facts["comparison"]["compared"], len(facts["comparison"]["most_changed"])) == (12, 3)
    assert facts["refused"][0]["error_class"] == "UnsupportedFormat"
