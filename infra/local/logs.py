"""Server logs: kept small, and quoted in errors."""

from __future__ import annotations

from pathlib import Path

LARGE_BYTES = 5 * 2**20
TAIL_LINES = 15
TAIL_BYTES = 16_384


def rotate_if_large(log: Path) -> None:
    """Keep one older log beside the current one; called before a start, when nobody writes to it."""
    if log.exists() and log.stat().st_size > LARGE_BYTES:
        log.replace(log.with_suffix(".log.1"))


def last_lines(log: Path, count: int = TAIL_LINES) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-count:]) or "  (the log is empty)"
