"""Which images an audit counts: those that came to the broker between two times."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
EVER_MS = 1 << 62
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Window:
    """From ``since_ms`` on, up to but not ``until_ms``; milliseconds since 1970, None is open."""

    since_ms: int | None = None
    until_ms: int | None = None

    @classmethod
    def between(cls, since: datetime | None, until: datetime | None) -> "Window":
        return cls(*(None if time is None else round(time.timestamp() * 1000) for time in (since, until)))

    @property
    def bounds_ms(self) -> tuple[int, int]:
        low = -EVER_MS if self.since_ms is None else self.since_ms
        return low, EVER_MS if self.until_ms is None else self.until_ms

    def holds(self, time_ms: int) -> bool:
        low, high = self.bounds_ms
        return low <= time_ms < high


def moment(text: str, now: datetime) -> datetime:
    """The time that a person names: ISO 8601, in this machine's zone where it has none, or ``2h`` before ``now``.

    Raises:
        ValueError: neither of the two.
    """
    if ago := AGO.fullmatch(text.strip()):
        try:
            return now - timedelta(seconds=float(ago[1]) * SECONDS[ago[2]])
        except OverflowError:
            raise ValueError(f"{text!r} is before the calendar begins") from None
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        raise ValueError(f"{text!r} is neither an ISO 8601 time nor a duration such as 30m, 2h or 1d") from None


def iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
