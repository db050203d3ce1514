"""What people and pages ask, by an index each: `History` has millions of rows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, Subquery, Table, case, func, select, tuple_

from pipeline.history import tables
from pipeline.history.database import HOUR_MS, History, Skipped
from pipeline.history.rows import Row

Axis = Literal["hour", "day", "product", "camera", "model_version", "verdict"]
DAY_MS = 24 * HOUR_MS
AT_ONCE = 5000


@dataclass(frozen=True)
class Query:
    """Which events. From `since_ms` on, up to but not `until_ms`, by the broker's time; None: all."""

    product: str | None = None
    camera: str | None = None
    model_version: str | None = None
    verdict: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def conditions(self, table: Table, at: ColumnElement[int]) -> list[ColumnElement[bool]]:
        names = ("product", "camera", "model_version", "verdict")
        asked = [table.c[name] == value for name in names if (value := getattr(self, name)) is not None]
        if self.since_ms is not None:
            asked.append(at >= self.since_ms)
        if self.until_ms is not None:
            asked.append(at < self.until_ms)
        return asked


@dataclass(frozen=True)
class Count:
    """Events of one place on the axes that were asked for, in their order."""

    at: tuple[Any, ...]
    verdicts: dict[str, int]

    @property
    def events(self) -> int:
        return sum(self.verdicts.values())


Place = tuple[int, int, int]
"""Of an event in the order of pages: at_ms, partition, offset."""


def newest(query: Query, limit: int, before: Place | None = None) -> Select[Any]:
    """The newest events of a query, or those that come before a place, as the statement that is run."""
    table = tables.events
    order = (table.c.at_ms, table.c.partition, table.c.offset)
    statement = select(table).where(*query.conditions(table, table.c.at_ms))
    if before is not None:
        statement = statement.where(tuple_(*order) < tuple_(*before))
    return statement.order_by(*(column.desc() for column in order)).limit(limit)


def events(history: History, query: Query, limit: int | None = None) -> Iterator[Row]:
    """Newest first. The database is not held meanwhile: a page of rows is read at a time.

    Raises:
        HistoryUnavailable: no answer.
    """
    last: Place | None = None
    left = limit
    while left is None or left > 0:
        size = min(AT_ONCE, left or AT_ONCE)
        with history.reads() as connection:
            page = connection.execute(newest(query, size, last)).mappings().all()
        yield from map(dict, page)
        if len(page) < size:
            return
        last = (page[-1]["at_ms"], page[-1]["partition"], page[-1]["offset"])
        left = None if left is None else left - len(page)


def event(history: History, event_id: str) -> Row | None:
    """The event of this id, if it is there."""
    with history.reads() as connection:
        statement = select(tables.events).where(tables.events.c.event_id == event_id)
        row = connection.execute(statement).mappings().one_or_none()
    return dict(row) if row is not None else None


def counts(history: History, query: Query, *axes: Axis) -> list[Count]:
    """How many events of each verdict, along axes; a count of hours is one of whole hours, in UTC, all ever read.

    `since_ms` and `until_ms` are rounded down to the hour.
    """
    table = tables.hours
    rounded = {name: value // HOUR_MS * HOUR_MS for name in ("since_ms", "until_ms") if (value := getattr(query, name))}
    query = Query(**{**{one.name: getattr(query, one.name) for one in fields(query)}, **rounded})
    columns: dict[str, ColumnElement[Any]] = {
        "hour": table.c.hour_ms,
        "day": table.c.hour_ms - table.c.hour_ms % DAY_MS,
        **{name: table.c[name] for name in ("product", "camera", "model_version", "verdict")},
    }
    chosen = [columns[axis] for axis in axes]
    statement = select(*chosen, table.c.verdict, func.sum(table.c.events))
    statement = statement.where(*query.conditions(table, table.c.hour_ms)).group_by(*chosen, table.c.verdict)
    with history.reads() as connection:
        rows = connection.execute(statement).all()
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    for *at, verdict, number in rows:
        found.setdefault(tuple(at), {})[verdict] = int(number)
    return [Count(at, verdicts) for at, verdicts in sorted(found.items())]


def answers(history: History, product: str | None = None, since_ms: int | None = None) -> list[Row]:
    """What people say: of each person the last answer to an event, unless it was withdrawn; newest first.

    A row has `conflict`: whether people differ on whether the part is good. `unsure` differs from nobody.
    """
    table, standing = tables.feedback, _standing()
    said = [
        func.max(case((standing.c.answer == answer, 1), else_=0)).over(partition_by=standing.c.event_id)
        for answer in ("good", "defect")
    ]
    whole = select(*(standing.c[column.name] for column in table.c), (said[0] + said[1]).label("opinions")).subquery()
    statement = select(whole).order_by(whole.c.at_ms.desc(), whole.c.offset.desc())
    if product is not None:
        statement = statement.where(whole.c.product == product)
    if since_ms is not None:
        statement = statement.where(whole.c.at_ms >= since_ms)
    with history.reads() as connection:
        rows = [dict(row) for row in connection.execute(statement).mappings()]
    return [{**row, "conflict": row.pop("opinions") == 2} for row in rows]


def queue(history: History, product: str, limit: int | None = None) -> list[Row]:
    """Events that people are to be asked about and nobody has answered, in an order that says nothing of them."""
    table, standing = tables.events, _standing()
    statement = select(table).where(table.c.product == product, table.c.review)
    statement = statement.where(table.c.event_id.not_in(select(standing.c.event_id)))
    statement = statement.order_by(table.c.event_id).limit(limit)  # ids are digests: as good as a shuffle
    with history.reads() as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]


def _standing() -> Subquery:
    """Answers that count: the last of each person to an event."""
    table = tables.feedback
    order = (table.c.at_ms.desc(), table.c.partition.desc(), table.c.offset.desc())
    last = func.row_number().over(partition_by=(table.c.event_id, table.c.person), order_by=order)
    ranked = select(table, last.label("rank")).subquery()
    return select(ranked).where(ranked.c.rank == 1, ranked.c.answer != "withdrawn").subquery()


def missing(history: History, limit: int) -> list[Skipped]:
    """What the topics had and the history has not, the last first."""
    table = tables.unread
    with history.reads() as connection:
        rows = connection.execute(select(table).order_by(table.c.offset.desc()).limit(limit)).all()
    return [Skipped(*row) for row in rows]


def plain(row: Row) -> Row:
    """A row of events as people and other programs read it: times in ISO 8601, UTC, regions as objects."""
    told: Row = {}
    for name, value in row.items():
        if name.endswith("_ms"):
            told[name.removesuffix("_ms")] = datetime.fromtimestamp(value / 1000, UTC)
        else:
            told[name] = json.loads(value) if name in ("regions", "boxes") else value
    return told
