"""Moments as a person types them on the command line: a time, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def moment(text: str, now: datetime) -> datetime:
    """The moment that ``text`` names, in UTC: ISO 8601, or a duration before ``now`` such as 90s, 30m, 2h, 1d.

    A time without a zone is in this machine's, as in cron fields.

    Raises:
        ValueError: it is neither, or before 1970.
    """
    duration = DURATION.fullmatch(text.strip())
    try:
        if duration:
            found = now - timedelta(**{UNITS[duration[2]]: float(duration[1])})
        else:
            found = datetime.fromisoformat(text.strip())
        if found.timestamp() >= 0:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # no date, or one that no calendar holds
    raise ValueError(
        f"{text[:60]!r} is no moment: give a time such as 2026-01-31T13:30Z, or how long ago, such as 30m, 2h, 1d"
    )
