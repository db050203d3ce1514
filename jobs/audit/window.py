"""Which images an audit counts: those that came to the broker between two times."""

from dataclasses import dataclass
from datetime import UTC, datetime

EVER_MS = 1 << 62


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


def iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
