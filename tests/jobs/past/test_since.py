"""Moments as people type them."""

import time
from datetime import UTC, datetime

import pytest

from jobs.past.since import moment

NOW = datetime(2026, 1, 31, 13, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", datetime(2026, 1, 31, 13, 28, 30, tzinfo=UTC)),
        ("30m", datetime(2026, 1, 31, 13, 0, tzinfo=UTC)),
        ("2h", datetime(2026, 1, 31, 11, 30, tzinfo=UTC)),
        (" 1.5d ", datetime(2026, 1, 30, 1, 30, tzinfo=UTC)),
        ("2026-01-31T13:30Z", NOW),
        ("2026-01-31T14:30+01:00", NOW),
        ("2026-01-31 13:30:00+00:00", NOW),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago(text: str, expected: datetime) -> None:
    found = moment(text, NOW)
    assert found == expected
    assert found.tzinfo == UTC


def test_a_time_without_a_zone_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert moment("2026-01-31T14:30", NOW) == NOW
        assert moment("2026-07-01", NOW) == datetime(2026, 6, 30, 22, tzinfo=UTC), "in summer time, whatever it is now"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2", "2w", "-2h", "2026-13-01", "9" * 20 + "d", "0001-01-01", "60000d"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2026-01-31T13:30Z"):
        moment(text, NOW)
