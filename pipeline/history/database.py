"""What was read of the topics, and up to where, in one transaction of the database: so each message is in it once.

A follower that dies in between begins again where the rows end. Two followers of one database don't harm each other
either: a position is moved only from where its follower believes it to be, and who comes second learns that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    create_engine,
    delete,
    event,
    func,
    make_url,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from pipeline.contracts.broker import Record
from pipeline.errors import HistoryError, HistoryOvertaken, HistoryUnavailable
from pipeline.history import tables
from pipeline.history.rows import Row, row_of
from pipeline.settings import Settings

HOUR_MS = 3_600_000
WRITES = "linewatch_writes"
SQLITE_WAIT_S = 30
EXTRA = "linewatch[postgres]"
PRUNED_AT_ONCE = 10_000
"""Rows of one transaction, or a follower would wait for all of them."""


@dataclass(frozen=True)
class Position:
    """Where reading goes on in a partition, and of which topic, where the broker gives topics ids."""

    next: int
    topic_id: str = ""


Positions = dict[tuple[str, int], Position]


@dataclass(frozen=True)
class Skipped:
    """Messages that nobody will read: from an offset on, so many of them."""

    topic: str
    partition: int
    offset: int
    messages: int
    why: str


class History:
    """The database. Used from one thread; several may be open, in several processes."""

    def __init__(self, settings: Settings) -> None:
        """Opens it, and makes the tables where there are none.

        Raises:
            HistoryError: it is none of linewatch's, or of another version of it; or its address is wrong.
            HistoryUnavailable: no answer.
        """
        self._topics = settings.topics
        self.engine = _engine(settings)
        self.where = self.engine.url.render_as_string(hide_password=True)
        self._insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def begin(self, *, writes: bool = True) -> Iterator[Connection]:
        """A transaction: all of it, or nothing.

        Raises:
            HistoryUnavailable: it did not happen; worth trying again.
        """
        try:
            with self.engine.connect().execution_options(**{WRITES: writes}) as connection, connection.begin():
                yield connection
        except DBAPIError as error:
            raise HistoryUnavailable(f"{self.where}: {_line(error)}") from error

    def reads(self) -> AbstractContextManager[Connection]:
        """A transaction that changes nothing, and waits for no writer."""
        return self.begin(writes=False)

    def positions(self) -> Positions:
        """By topic and partition; of those that were ever read."""
        with self.reads() as connection:
            rows = connection.execute(select(tables.positions)).all()
        return {(row.topic, row.partition): Position(row.next, row.topic_id) for row in rows}

    def write(self, records: Sequence[Record], known: Positions, moved: Positions) -> Positions:
        """Keep records and move the positions of their partitions, both or neither; the positions as they are then.

        known: what this follower believes. moved: where to, for all partitions of the records at least.

        Raises:
            HistoryOvertaken: another follower has moved one; nothing was written.
            HistoryUnavailable: nothing was written.
        """
        rows: dict[Table, list[Row]] = defaultdict(list)
        for record in records:
            try:
                table, row = row_of(record, self._topics)
            except ValueError as error:
                skipped = Skipped(record.topic, record.partition, record.offset, 1, f"can't be read: {error}"[:500])
                table, row = tables.unread, vars(skipped)
            rows[table].append(row)
        with self.begin() as connection:
            for at, position in sorted(moved.items()):  # first: whoever is behind learns it before it has done anything
                self._move(connection, at, known.get(at), position)
            for table, of_table in rows.items():
                if table is tables.events:
                    self._events(connection, of_table)
                else:
                    connection.execute(self._insert(table).on_conflict_do_nothing(), of_table)
        return {**known, **moved}

    def skip(self, skipped: Skipped, known: Positions, moved: Position) -> Positions:
        """Note what can't be had any more, and go on behind it. Raises as `write` does."""
        at = (skipped.topic, skipped.partition)
        with self.begin() as connection:
            self._move(connection, at, known.get(at), moved)
            if skipped.messages:
                connection.execute(self._insert(tables.unread).on_conflict_do_nothing(), [vars(skipped)])
        return {**known, at: moved}

    def prune(self, before_ms: int) -> int:
        """Delete events, dead letters and their marks from before a time; returns how many. Counts by hour stay."""
        total = 0
        for table in (tables.events, tables.deadletters, tables.replays):
            keys = list(table.primary_key.columns)
            oldest = select(*keys).where(table.c.at_ms < before_ms).limit(PRUNED_AT_ONCE)
            gone = PRUNED_AT_ONCE
            while gone == PRUNED_AT_ONCE:
                with self.begin() as connection:
                    key = tuple_(*keys) if len(keys) > 1 else keys[0]
                    gone = connection.execute(delete(table).where(key.in_(oldest))).rowcount
                total += gone
        return total

    def copies(self) -> int:
        """Messages that another one had said already: an image that was sent twice, or delivery at least once."""
        with self.reads() as connection:
            return int(connection.execute(select(func.sum(tables.positions.c.copies))).scalar_one() or 0)

    def sizes(self) -> dict[str, int]:
        """Rows of each table."""
        with self.reads() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in tables.CONTENTS
            }

    def _make(self) -> None:
        with self.begin() as connection:
            tables.metadata.create_all(connection)
            made = self._insert(tables.about).on_conflict_do_nothing()
            connection.execute(made, [{"name": "schema", "value": str(tables.SCHEMA)}])
            found = connection.execute(select(tables.about.c.value).where(tables.about.c.name == "schema")).scalar_one()
        if found != str(tables.SCHEMA):
            raise HistoryError(
                f"{self.where} has tables of version {found}, this linewatch writes {tables.SCHEMA}: throw them away "
                "by 'linewatch history rebuild', or name another database (history.url)"
            )

    def _events(self, connection: Connection, rows: list[Row]) -> None:
        """Insert those that are new, and count them by hour, and the others by partition."""
        by_id = {row["event_id"]: row for row in reversed(rows)}
        statement = self._insert(tables.events).on_conflict_do_nothing().returning(tables.events.c.event_id)
        new = set(connection.execute(statement, list(by_id.values())).scalars())
        names = [column.name for column in tables.hours.primary_key.columns]
        counted = Counter(
            tuple(row["at_ms"] // HOUR_MS * HOUR_MS if name == "hour_ms" else row[name] for name in names)
            for event_id, row in by_id.items()
            if event_id in new
        )
        if counted:
            upsert = self._insert(tables.hours)
            upsert = upsert.on_conflict_do_update(
                index_elements=names, set_={"events": tables.hours.c.events + upsert.excluded.events}
            )
            connection.execute(
                upsert, [{**dict(zip(names, key, strict=True)), "events": n} for key, n in sorted(counted.items())]
            )
        copies = Counter(row["partition"] for row in rows)
        copies.subtract(by_id[event_id]["partition"] for event_id in new)
        place = tables.positions.c
        for partition, count in copies.items():
            if count:
                here = (place.topic == self._topics.events) & (place.partition == partition)
                more = update(tables.positions).where(here).values(copies=place.copies + count)
                connection.execute(more)

    def _move(self, connection: Connection, at: tuple[str, int], before: Position | None, after: Position) -> None:
        place = tables.positions
        if before is None:
            row = {"topic": at[0], "partition": at[1], "copies": 0, **vars(after)}
            made = self._insert(place).values(**row).on_conflict_do_nothing().returning(place.c.next)
            moved = connection.execute(made).first() is not None
        else:
            here = (place.c.topic == at[0]) & (place.c.partition == at[1])
            same = (place.c.next == before.next) & (place.c.topic_id == before.topic_id)
            moved = connection.execute(update(place).where(here & same).values(**vars(after))).rowcount == 1
        if not moved:
            raise HistoryOvertaken(f"another follower writes to {self.where}, too: it was ahead at {at[0]}/{at[1]}")


def throw_away(settings: Settings) -> None:
    """Empty the database, whatever version its tables are of. A follower builds it again, from what the broker has.

    Raises:
        HistoryError, HistoryUnavailable: as `History` does.
    """
    engine = _engine(settings)
    try:
        with engine.begin() as connection:
            tables.metadata.drop_all(connection)
    except DBAPIError as error:
        raise HistoryUnavailable(f"{engine.url}: {_line(error)}") from error
    finally:
        engine.dispose()


def _engine(settings: Settings) -> Engine:
    history = settings.history
    try:
        url = make_url(history.url)
        if url.drivername.startswith("postgresql"):
            password = history.password.get_secret_value() if history.password else None
            # A server that is away is told within seconds; one that is gone without a word, too.
            waits = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
            url = url.set(drivername="postgresql+psycopg", password=password)
            return create_engine(url, connect_args=waits, pool_pre_ping=True)
        engine = create_engine(url, connect_args={"timeout": SQLITE_WAIT_S})
    except ModuleNotFoundError as error:
        raise HistoryError(f"history.url: PostgreSQL's driver is not installed: pip install '{EXTRA}'") from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise HistoryError(f"history.url {history.url!r} is no address of a database: {error}") from None
    event.listen(engine, "connect", _as_sqlite_should)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _as_sqlite_should(connection: Any, _: object) -> None:
    """Readers beside the writer, and transactions that begin where we say."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    # A crash of the machine may cost the last transactions: what was in them is read again.
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    # Whoever writes takes the lock at once: one who wants it after having read is refused, and not kept waiting.
    writes = connection.get_execution_options().get(WRITES, True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _line(error: DBAPIError) -> str:
    text = str(error.orig).strip()
    return text.splitlines()[0][:300] if text else type(error.orig).__name__
