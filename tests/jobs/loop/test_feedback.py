"""Answers of people: given, changed, withdrawn, in conflict; each counts once, whatever is rebuilt."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.loop.feedback import About, FeedbackRefused, find, give
from pipeline.contracts.events import Box, Feedback
from pipeline.history import History, answers
from pipeline.history.database import Position
from pipeline.kafka.topics import ensure_topics
from pipeline.serving.rest import build_app
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.pipeline.environment import clean_environment
from tests.pipeline.history.conftest import postgres, url
from tests.pipeline.history.messages import NOON, VERSION, inspected, read
from tests.pipeline.history.test_following import contents, follow, sent
from tests.pipeline.serving.test_rest import Client

__all__ = ["clean_environment", "postgres", "url"]


@pytest.fixture
def settings(url: str) -> Settings:
    return Settings.from_values({"history": {"url": url}})


def said(number: int, person: str, answer: str, event: int = 0, **more: object) -> Feedback:
    values = {
        "feedback_id": f"f{number}", "event_id": f"e{event}", "image_id": f"i{event}", "camera": "/c", "product": "cap",
        "model_version": VERSION, "answer": answer, "person": person, "given_at": NOON,
    }  # fmt: skip
    return Feedback.model_validate(values | more)


def kept(settings: Settings, *said_: Feedback) -> dict[tuple[str, str], tuple[str, bool]]:
    """(event, person) to (answer, conflict), of the answers that count."""
    from pipeline.contracts.broker import Outgoing

    topic = settings.topics.feedback
    records = [
        read(Outgoing(topic, b"/c", one.model_dump_json().encode()), n, at_ms=1000 + n // 2)
        for n, one in enumerate(said_)
    ]
    with History(settings) as history:
        history.write(records, history.positions(), {(topic, 0): Position(len(records))})
        return {(row["event_id"], row["person"]): (row["answer"], row["conflict"]) for row in answers(history)}


def test_the_last_answer_of_a_person_counts(settings: Settings) -> None:
    found = kept(settings, said(0, "anna", "good"), said(1, "anna", "defect"), said(2, "anna", "good"))
    assert found == {("e0", "anna"): ("good", False)}


def test_people_who_differ_are_a_conflict_and_who_is_unsure_is_none(settings: Settings) -> None:
    found = kept(
        settings,
        said(0, "anna", "good"), said(1, "bert", "defect"),
        said(2, "anna", "good", event=1), said(3, "bert", "unsure", event=1),
        said(4, "anna", "defect", event=2), said(5, "bert", "defect", event=2),
    )  # fmt: skip
    assert found == {
        ("e0", "anna"): ("good", True), ("e0", "bert"): ("defect", True),
        ("e1", "anna"): ("good", False), ("e1", "bert"): ("unsure", False),
        ("e2", "anna"): ("defect", False), ("e2", "bert"): ("defect", False),
    }  # fmt: skip


def test_what_is_withdrawn_counts_no_more_and_ends_a_conflict(settings: Settings) -> None:
    found = kept(settings, said(0, "anna", "good"), said(1, "bert", "defect"), said(2, "bert", "withdrawn"))
    assert found == {("e0", "anna"): ("good", False)}


def test_the_same_message_again_is_no_later_answer(settings: Settings) -> None:
    first = said(0, "anna", "good")
    assert kept(settings, first, said(1, "anna", "defect"), first) == {("e0", "anna"): ("defect", False)}


@pytest.mark.parametrize(
    ("answer", "more", "why"),
    [
        ("good", {"kind": "scratch"}, "a kind and boxes are of a defect"),
        ("unsure", {"boxes": [Box(x=0, y=0, width=1, height=1)]}, "a kind and boxes are of a defect"),
        ("defect", {"boxes": [Box(x=630, y=0, width=20, height=1)]}, "reaches out of the image, which has 640 x 480"),
        ("defect", {"comment": "x" * 600}, "comment: String should have at most 500"),
    ],
)
def test_answers_that_can_not_be_meant_are_refused(answer: str, more: dict[str, object], why: str) -> None:
    about = About("e", "i", "/c", "cap", VERSION, 640, 480)
    with pytest.raises(FeedbackRefused, match=why):
        give(Settings(), about, answer, "anna", **more)  # type: ignore[arg-type]


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["feedback", *words])


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "-1,0,5,5", "0,0,0,5"])
def test_a_box_is_four_numbers(box: str) -> None:
    done = run("give", "0" * 32, "defect", "--box", box)
    assert done.exit_code == 2
    assert "four whole numbers x,y,w,h" in done.output


@pytest.fixture
def line(apache: Plant, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A topic with thirty events; the history's file is the default one."""
    settings = apache.settings()
    ensure_topics(settings)
    sent(settings, range(30))
    monkeypatch.setenv("LINEWATCH_KAFKA__BOOTSTRAP_SERVERS", settings.kafka.bootstrap_servers)
    monkeypatch.setenv("LINEWATCH_TOPICS__PREFIX", settings.topics.prefix)
    monkeypatch.setenv("LINEWATCH_KAFKA__DELIVERY", "exactly_once")
    return Settings.load()


@pytest.mark.servers
@pytest.mark.apache
def test_sixty_answers_by_the_command_a_conflict_and_a_withdrawal(line: Settings) -> None:
    identifiers = [inspected(n, line).event_id for n in range(30)]
    assert "no event" in run("give", "0" * 32, "good", "--by", "anna").output
    for number, identifier in enumerate(identifiers):
        answer = "defect" if number % 5 in (3, 4) else "good"
        words = ["--kind", "scratch", "--box", "1,2,3,4"] if answer == "defect" else []
        for person in ("anna", "bert"):
            done = run("give", identifier, answer, "--by", person, *words)
            assert done.exit_code == 0, done.output
    assert "says anna" in run("give", identifiers[0], "good", "--by", "anna").output  # again
    assert run("give", identifiers[1], "defect", "--by", "bert").exit_code == 0
    assert run("withdraw", identifiers[2], "--by", "bert").exit_code == 0
    listed = [json.loads(row) for row in run("list", "--json").stdout.splitlines()]
    assert len(listed) == 59
    defects = [row for row in listed if row["answer"] == "defect" and row["person"] == "anna"]
    assert len(defects) == 12
    assert defects[0]["boxes"] == [{"x": 1, "y": 2, "width": 3, "height": 4}]
    assert defects[0]["kind"] == "scratch"
    told = run("conflicts").stdout.splitlines()
    assert len(told) == 2
    assert all(identifiers[1] in row and "conflict" in row for row in told)
    assert run("withdraw", identifiers[1], "--by", "bert").exit_code == 0
    assert not run("conflicts").stdout
    assert len(run("list", "-p", "bottle").stdout.splitlines()) == 29, "a withdrawn one less, of fifteen events"
    told = CliRunner().invoke(main, ["rates", "bottle"])
    assert told.exit_code == 0, told.output
    assert f"bottle {VERSION}: 15 parts" in told.output
    assert "escape" in told.output
    assert json.loads(CliRunner().invoke(main, ["rates", "bottle", "--json"]).stdout)[0]["reported"] == 15
    assert "no parts of 'none'" in CliRunner().invoke(main, ["rates", "none"]).output
    assert "nobody is waited for" in run("queue", "bottle").output
    with History(line) as history:
        before = contents(history)
    assert CliRunner().invoke(main, ["history", "rebuild", "--yes"]).exit_code == 0
    with History(line) as history:
        assert contents(history) == before


@pytest.mark.servers
@pytest.mark.apache
def test_an_event_is_found_where_no_history_was_kept(line: Settings) -> None:
    said_ = inspected(7, line)
    from_topic = find(line, said_.event_id, exact=True)
    with History(line) as history:
        follow(line, history)
    assert find(line, said_.event_id, exact=True) == from_topic
    assert (from_topic.image_id, from_topic.width) == (said_.image_id, said_.width)


@pytest.mark.servers
@pytest.mark.apache
def test_answers_by_rest_are_those_of_the_command(line: Settings) -> None:
    event = inspected(3, line)
    client = Client(build_app(lambda: SimpleNamespace(settings=line), lambda: None))  # type: ignore[arg-type, return-value]
    about = {name: getattr(event, name) for name in ("image_id", "camera", "product", "model_version")}
    url = f"/v1/events/{event.event_id}/feedback"
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    body = {**about, "answer": "defect", "kind": "scratch", "boxes": [box], "person": "anna", "feedback_id": "again"}
    for _ in range(2):
        done = client.post(url, json=body)
        assert done.status_code == 201, done.text
        assert done.json()["event_id"] == event.event_id
    assert client.post(url, json={**about, "answer": "good", "person": "bert"}).status_code == 201
    listed = [json.loads(row) for row in run("list", "--json").stdout.splitlines()]
    assert {(row["person"], row["answer"], row["conflict"]) for row in listed} == {
        ("anna", "defect", True),
        ("bert", "good", True),
    }
    with History(line) as history:
        assert history.sizes()["feedback"] == 2, "the same again is the same"
    for wrong, why in (
        ({**body, "answer": "fine"}, "answer: Input should be 'good'"),
        ({**body, "answer": "good"}, "a kind and boxes are of a defect"),
        ({**body, "image_id": "another"}, "is not the event of image 'another'"),
        ({**body, "model_version": VERSION.replace("2026", "2025")}, "is not the event of image"),
        ({**body, "camera": "cam1"}, "is not the event of image"),
        ({name: body[name] for name in body if name != "person"}, "person: Field required"),
        ([1], "no JSON object"),
    ):
        done = client.post(url, json=wrong)
        assert done.status_code == 422, done.text
        assert why in done.json()["message"]
    assert client.post(url, content=b"{").status_code == 422
    assert client.post(url, content=b"x" * 100_000).status_code == 413
