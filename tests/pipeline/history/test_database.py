"""Rows and positions, both or neither: on SQLite and on a real PostgreSQL."""

from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.contracts.broker import Outgoing, Record
from pipeline.contracts.deadletters import letter_in
from pipeline.errors import HistoryError, HistoryOvertaken, HistoryUnavailable, SettingsError
from pipeline.history import Count, History, Query, counts, event, events, throw_away
from pipeline.history.database import HOUR_MS, Position, Skipped
from pipeline.history.queries import newest, plain
from pipeline.history.tables import about, unread
from pipeline.settings import Settings
from tests.pipeline.history.messages import (
    NOON_MS,
    VERSION,
    inspected,
    letter_that_is_a_mark,
    of_event,
    of_letter,
    of_release,
    read,
)


@pytest.fixture
def settings(url: str) -> Settings:
    return Settings.from_values({"history": {"url": url}})


def batch(settings: Settings, *numbers: int, at_ms: int = NOON_MS) -> list[Record]:
    return [read(of_event(inspected(n, settings), settings), n, at_ms=at_ms + n) for n in numbers]


def positions(settings: Settings, next_: int) -> dict[tuple[str, int], Position]:
    return {(settings.topics.events, 0): Position(next_, "an-id")}


def test_an_event_comes_back_as_it_was_said(settings: Settings) -> None:
    said = inspected(3, settings)
    with History(settings) as history:
        known = history.write(batch(settings, 3), {}, positions(settings, 4))
        assert known == history.positions() == positions(settings, 4)
        row = event(history, said.event_id)
        assert event(history, "another") is None
    assert row is not None
    told = plain(row)
    for name in ("image_id", "camera", "product", "model_version", "verdict", "score", "normalised_score", "width"):
        assert told[name] == getattr(said, name)
    assert told["regions"] == [region.model_dump() for region in said.regions]
    assert told["captured"] == said.times.captured
    assert (told["source_offset"], told["offset"]) == (said.source.offset, 3)
    assert row["at_ms"] == NOON_MS + 3


def test_what_is_said_again_counts_once(settings: Settings) -> None:
    with History(settings) as history:
        again = [*batch(settings, 0, 1), read(of_event(inspected(0, settings), settings), 7)]
        known = history.write(again, {}, positions(settings, 8))
        history.write([read(of_event(inspected(1, settings), settings), 8)], known, positions(settings, 9))
        assert history.sizes()["events"] == 2
        assert sum(count.events for count in counts(history, Query())) == 2
        assert history.copies() == 2
        first = event(history, inspected(0, settings).event_id)
        assert first is not None
        assert first["offset"] == 0, "the first that was read"


def test_of_two_followers_the_one_behind_writes_nothing(settings: Settings) -> None:
    with History(settings) as one, History(settings) as other:
        known = one.write(batch(settings, 0), {}, positions(settings, 1))
        with pytest.raises(HistoryOvertaken, match="another follower"):
            other.write(batch(settings, 5), {}, positions(settings, 6))
        one.write(batch(settings, 1), known, positions(settings, 2))
        with pytest.raises(HistoryOvertaken):
            other.write(batch(settings, 6), known, positions(settings, 7))
        assert other.sizes()["events"] == 2
        assert other.positions() == positions(settings, 2)


def test_letters_marks_and_releases_are_kept(settings: Settings) -> None:
    topics = settings.topics
    letter = read(of_letter(settings, 5), 0)
    found = letter_in(letter)
    assert found is not None
    records = [letter, read(found.marker(), 1), read(of_letter(settings, 6), 2), read(of_release(settings, "cap"), 0)]
    both = letter_that_is_a_mark(read(of_letter(settings, 7), 3))
    moved = {(topics.deadletters, 0): Position(4), (topics.releases, 0): Position(1)}
    with History(settings) as history:
        history.write([*records, both], {}, moved)
        sizes = history.sizes()
    assert (sizes["deadletters"], sizes["replays"], sizes["releases"]) == (3, 1, 1)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "JSON"),
        (b"{}", "event_id: Field required"),
        (None, "JSON"),
        (b'{"event_id": ', "JSON"),
    ],
)
def test_what_is_no_event_is_told_and_does_not_stop_the_others(
    settings: Settings, value: bytes | None, why: str
) -> None:
    hostile = read(Outgoing(settings.topics.events, None, value), 1)
    with History(settings) as history:
        history.write([*batch(settings, 0), hostile, *batch(settings, 2)], {}, positions(settings, 3))
        assert history.sizes()["events"] == 2
        with history.reads() as connection:
            (row,) = connection.execute(select(unread)).all()
    assert (row.offset, row.messages) == (1, 1)
    assert why in row.why


def test_values_that_a_database_refuses_are_none_that_stop_it(settings: Settings) -> None:
    """PostgreSQL's text takes no NUL, its integers end, and an index takes so many characters."""
    good = inspected(0, settings)
    with_nul = good.model_copy(update={"event_id": "a\0b", "camera": "/cam\0"})
    too_wide = good.model_copy(update={"event_id": "c", "width": 1 << 40})
    too_long = good.model_copy(update={"event_id": "d" * 5000})
    nowhere = good.model_copy(update={"event_id": "e", "source": good.source.model_copy(update={"offset": 1 << 70})})
    said = [good, with_nul, too_wide, too_long, nowhere]
    records = [read(of_event(one, settings), n) for n, one in enumerate(said)]
    endless = of_event(good, settings)
    records.append(read(Outgoing(endless.topic, None, (endless.value or b"").replace(b"0.05", b"1e999")), 5))
    with History(settings) as history:
        history.write(records, {}, positions(settings, 6))
        assert history.sizes()["events"] == 2
        assert history.sizes()["unread"] == 4
        assert {row["event_id"] for row in events(history, Query())} == {good.event_id, "a\ufffdb"}


def test_events_are_asked_newest_first_page_by_page(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.history.queries.AT_ONCE", 7)
    with History(settings) as history:
        known = history.write(batch(settings, *range(40)), {}, positions(settings, 40))
        same_time = [read(of_event(inspected(n, settings), settings), n) for n in range(40, 60)]
        history.write(same_time, known, positions(settings, 60))
        everything = list(events(history, Query()))
        assert len({row["event_id"] for row in everything}) == 60
        assert [row["at_ms"] for row in everything] == sorted((row["at_ms"] for row in everything), reverse=True)
        assert [row["event_id"] for row in events(history, Query(), 9)] == [r["event_id"] for r in everything[:9]]
        of_cap = list(events(history, Query(product="cap", verdict="NotOK", since_ms=NOON_MS + 10)))
        assert {row["verdict"] for row in of_cap} == {"NotOK"}
        assert all(row["product"] == "cap" and row["at_ms"] >= NOON_MS + 10 for row in of_cap)
        assert len(of_cap) == sum(n % 2 == 0 and n % 5 == 3 and 10 <= n < 40 for n in range(40))
        assert not list(events(history, Query(camera="/nowhere")))


def test_counts_by_the_hour_are_those_of_all_events_ever(settings: Settings) -> None:
    with History(settings) as history:
        known = history.write(batch(settings, *range(10)), {}, positions(settings, 10))
        later = batch(settings, *range(10, 30), at_ms=NOON_MS + 30 * HOUR_MS)
        history.write(later, known, positions(settings, 30))
        assert [count.events for count in counts(history, Query(), "hour")] == [10, 20]
        assert [count.events for count in counts(history, Query(), "day")] == [10, 20]
        assert counts(history, Query(until_ms=NOON_MS + HOUR_MS), "product") == [
            Count(("bottle",), {"OK": 3, "NotOK": 1, "NotDecidable": 1}),
            Count(("cap",), {"OK": 3, "NotOK": 1, "NotDecidable": 1}),
        ]
        assert counts(history, Query(model_version=VERSION))[0].events == 30
        assert counts(history, Query(product="none")) == []
        assert history.prune(NOON_MS + HOUR_MS) == 10
        assert history.prune(NOON_MS + HOUR_MS) == 0
        assert history.sizes()["events"] == 20
        assert counts(history, Query())[0].events == 30, "counts outlive events"


def test_a_jump_over_what_is_gone_is_noted(settings: Settings) -> None:
    topic = settings.topics.events
    with History(settings) as history:
        known = history.skip(Skipped(topic, 0, 0, 50, "deleted"), {}, Position(50))
        assert known == history.positions() == {(topic, 0): Position(50)}
        history.skip(Skipped(topic, 1, 0, 0, "nothing"), known, Position(0))
        assert history.sizes()["unread"] == 1


def test_it_is_thrown_away_and_empty(settings: Settings) -> None:
    with History(settings) as history:
        history.write(batch(settings, 0), {}, positions(settings, 1))
        throw_away(settings)
    with History(settings) as history:
        assert not history.positions()
        assert not any(history.sizes().values())
        history.write(batch(settings, 0), {}, positions(settings, 1))


def test_tables_of_another_version_are_refused(settings: Settings) -> None:
    with History(settings) as history, history.begin() as connection:
        connection.execute(about.update().values(value="0"))
    with pytest.raises(HistoryError, match=r"tables of version 0.*history rebuild"):
        History(settings)


def test_a_database_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    for url, told in (
        (f"sqlite:///{tmp_path}/no/such/folder.db", "unable to open database file"),
        ("postgresql://nobody@127.0.0.1:1/x", "refused"),
    ):
        with pytest.raises(HistoryUnavailable, match=told) as caught:
            History(Settings.from_values({"history": {"url": url}}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "history.db", "postgresql://a:geheim@db/x"])
def test_addresses_that_are_none_and_passwords_in_them_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"history.url") as caught:
        Settings.from_values({"history": {"url": url}})
    assert "geheim" not in str(caught.value)


def test_a_page_is_read_from_an_index_in_its_order(tmp_path: Path) -> None:
    settings = Settings.from_values({"history": {"url": f"sqlite:///{tmp_path}/history.db"}})
    asked = {
        "all": Query(), "product": Query(product="p"), "camera": Query(camera="c"), "version": Query(model_version="v"),
        "product_verdict": Query(product="p", verdict="OK"), "camera_verdict": Query(camera="c", verdict="OK"),
        "verdict": Query(verdict="OK", until_ms=NOON_MS),
    }  # fmt: skip
    with History(settings) as history, history.reads() as connection:
        for name, query in asked.items():
            for before in (None, (NOON_MS, 1, 1)):
                compiled = newest(query, 50, before).compile(
                    dialect=history.engine.dialect, compile_kwargs={"literal_binds": True}
                )
                plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
                assert len(plan) == 1, "nothing is sorted"
                assert f"INDEX events_{name}_at " in f"{plan[0]} "
