"""Events of the history as a file for other programs: CSV or Parquet."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.history.queries import plain
from pipeline.history.rows import Row

FORMATS = (".csv", ".parquet")
AT_ONCE = 20_000


def export(rows: Iterable[Row], path: Path, on_rows: Callable[[int], None] = lambda _: None) -> int:
    """Write rows to a file in the format that its name ends with; returns how many. Times are UTC, regions are JSON.

    A file is there whole, or not at all.
    """
    partial = path.with_name(f".{path.name}.partial")
    total = 0
    write = _csv if path.suffix == ".csv" else _parquet
    try:
        for written in write((_flat(row) for row in rows), partial):
            total += written
            on_rows(total)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return total


def _flat(row: Row) -> dict[str, Any]:
    found = plain(row)
    return {**found, "regions": json.dumps(found["regions"], separators=(",", ":"))}


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, AT_ONCE)):
        yield batch


def _csv(rows: Iterator[dict[str, Any]], path: Path) -> Iterator[int]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for batch in _batches(rows):
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(batch[0]))
                writer.writeheader()
            writer.writerows({name: _text(value) for name, value in row.items()} for row in batch)
            yield len(batch)


def _text(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") if hasattr(value, "isoformat") else value


def _parquet(rows: Iterator[dict[str, Any]], path: Path) -> Iterator[int]:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    try:
        for batch in _batches(rows):
            table = pa.Table.from_pylist(batch)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
            yield len(batch)
        if writer is None:
            parquet.write_table(pa.table({}), path)
    finally:
        if writer is not None:
            writer.close()
