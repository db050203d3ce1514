"""`linewatch bench history`: how fast the history takes events, and how fast it answers when it has millions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects import postgresql, sqlite

from jobs.session.progress import Screen
from model import Region
from model.bench.machine import describe_machine
from pipeline.contracts.broker import Record
from pipeline.contracts.events import InspectionEvent, MaskReference, SourceOffset, Times, Verdict, event_id
from pipeline.history import Axis, History, Query, counts, event, events
from pipeline.history.database import HOUR_MS, Position
from pipeline.history.queries import DAY_MS, newest
from pipeline.settings import Settings

PRODUCTS, CAMERAS, DAYS, REPEATS, AT_ONCE = 20, 40, 60, 7, 2000
END = datetime(2026, 6, 1, tzinfo=UTC)
END_MS = round(END.timestamp() * 1000)
PRODUCT, CAMERA = "product-3", "/plant/line1/cam7"


def version_of(day: int) -> str:
    """A new one each week."""
    return f"{END - timedelta(days=DAYS - day // 7 * 7):%Y%m%d}T030000Z-0f1e2d3c"


def bench_history(url: str, rows: int, json_file: Path | None, command: str, screen: Screen) -> dict[str, Any]:
    """Fill a database with drawn events by the follower's own path, then ask it what pages ask.

    Raises:
        ValueError: there is something in it already.
    """
    settings = Settings.from_values({"history": {"url": url}})
    with History(settings) as history:
        if history.positions():
            raise ValueError(f"{history.where} is not empty: name one that is new")
        seconds = _fill(history, settings, rows, screen)
        if history.engine.dialect.name == "postgresql":
            with history.begin() as connection:
                connection.execute(text("ANALYZE"))  # as its own daemon does, some time later
        asked = {name: _ask(run) for name, run in _questions(history).items()}
        plans = _plans(history)
        size = _bytes(history, url)
    report = {
        "command": command, "machine": describe_machine(), "database": url.partition(":")[0], "rows": rows,
        "written_per_s": rows / seconds, "bytes": size, "median_ms": asked, "plans": plans,
    }  # fmt: skip
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    screen.say(f"{rows:,} events at {rows / seconds:,.0f} a second; {size / 1e9:.1f} GB")
    for name, took_ms in asked.items():
        screen.say(f"{took_ms:7.1f} ms  {name}")
        if name in plans:
            screen.say(f"{'':12}{plans[name]}")
    return report


def _fill(history: History, settings: Settings, rows: int, screen: Screen) -> float:
    """Seconds of all transactions, without the drawing."""
    topic, draw, seconds = settings.topics.events, Random(0), 0.0
    known = history.positions()
    with screen.step("Writing events", time_left=True) as step:
        for first in range(0, rows, AT_ONCE):
            batch = [_record(n, rows, draw, topic) for n in range(first, min(rows, first + AT_ONCE))]
            begun = time.monotonic()
            known = history.write(batch, known, {(topic, 0): Position(first + len(batch))})
            seconds += time.monotonic() - begun
            step.advance(first + len(batch), rows)
    return seconds


def _record(number: int, rows: int, draw: Random, topic: str) -> Record:
    at_ms = END_MS - DAYS * DAY_MS + number * DAYS * DAY_MS // rows
    camera = draw.randrange(CAMERAS)
    chance = draw.random()
    verdict: Verdict = "NotOK" if chance < 0.01 else "NotDecidable" if chance < 0.02 else "OK"
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    image, version = f"plant-cam{camera}-{number:09}", version_of(number * DAYS // rows)
    name = f"/plant/line{camera // 8}/cam{camera}"
    identifier = event_id(image, version)
    said = InspectionEvent.model_construct(
        event_id=identifier, image_id=image, camera=name, product=f"product-{camera % PRODUCTS}",
        model_version=version, score=chance, normalised_score=chance, threshold=1.0, verdict=verdict,
        regions=[] if verdict == "OK" else [Region(x=1, y=2, width=30, height=40, area_px=900, peak=1.4)],
        width=1280, height=960,
        mask=MaskReference(topic="linewatch.masks", key=name, event_id=identifier, sha256=f"{number:064x}"),
        times=Times(captured=at, received=at, scored=at, published=at),
        source=SourceOffset(topic="linewatch.images", partition=0, offset=number),
    )  # fmt: skip
    return Record(topic, 0, number, name.encode(), said.model_dump_json().encode(), (), at_ms)


def _questions(history: History) -> dict[str, Callable[[], object]]:
    """What the pages of a console ask: a page of events by each way, one event, counts of a shift and of a month."""
    hour, day, month = END_MS - HOUR_MS, END_MS - DAY_MS, END_MS - 30 * DAY_MS
    with history.reads() as connection:
        one = str(connection.execute(text("SELECT event_id FROM events LIMIT 1")).scalar_one())
    axes: dict[str, tuple[Query, tuple[Axis, ...]]] = {
        "counts of a day by hour, one product": (Query(product=PRODUCT, since_ms=day), ("hour",)),
        "counts of a day by camera": (Query(since_ms=day), ("camera",)),
        "counts of 30 days by day, one product": (Query(product=PRODUCT, since_ms=month), ("day",)),
        "counts of 30 days by version, one product": (Query(product=PRODUCT, since_ms=month), ("model_version",)),
        "counts of the last hour by product": (Query(since_ms=hour), ("product",)),
    }

    def listed(query: Query) -> Callable[[], object]:
        return lambda: list(events(history, query, 50))

    def counted(query: Query, along: tuple[Axis, ...]) -> Callable[[], object]:
        return lambda: counts(history, query, *along)

    return {
        **{name: listed(query) for name, query in _lists().items()},
        "one event by its id": lambda: event(history, one),
        **{name: counted(query, along) for name, (query, along) in axes.items()},
    }


def _lists() -> dict[str, Query]:
    middle = END_MS - 30 * DAY_MS
    return {
        "50 newest": Query(),
        "50 newest of a product": Query(product=PRODUCT),
        "50 newest of a camera": Query(camera=CAMERA),
        "50 newest flagged": Query(verdict="NotOK"),
        "50 newest flagged of a product": Query(product=PRODUCT, verdict="NotOK"),
        "50 newest to review of a camera": Query(camera=CAMERA, verdict="NotDecidable"),
        "50 newest of a version": Query(model_version=version_of(20)),
        "50 flagged of a product, 30 days ago": Query(product=PRODUCT, verdict="NotOK", until_ms=middle),
        "50 of a camera, 30 days ago": Query(camera=CAMERA, until_ms=middle),
    }


def _ask(run: Callable[[], object]) -> float:
    """Median milliseconds."""
    took = []
    for _ in range(REPEATS):
        begun = time.monotonic()
        run()
        took.append(1000 * (time.monotonic() - begun))
    return median(took)


def _plans(history: History) -> dict[str, str]:
    """How the database finds each page: by which index."""
    dialect = postgresql.dialect() if history.engine.dialect.name == "postgresql" else sqlite.dialect()
    explain = "EXPLAIN " if dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    found = {}
    with history.reads() as connection:
        for name, query in _lists().items():
            statement = newest(query, 50).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
            lines = [str(row[-1]) for row in connection.execute(text(explain + str(statement).replace(":", "\\:")))]
            found[name] = next(line.strip() for line in lines if "index" in line.lower() or "scan" in line.lower())
    return found


def _bytes(history: History, url: str) -> int:
    if history.engine.dialect.name == "postgresql":
        with history.reads() as connection:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    return Path(url.removeprefix("sqlite:///")).stat().st_size
