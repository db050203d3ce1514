"""What stands still on this node, replica by replica: a board that each writes on and all read.

Any replica of a node may be the one that is asked for its health. They keep this beside their metrics.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_own: list["Stall"] = []


@dataclass(frozen=True)
class Stall:
    """partition: of the images; None: all that the replica has."""

    reason: str
    since: datetime
    partition: int | None

    def told(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "reason": self.reason,
            "since": self.since.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "partition": self.partition,
        }


def put_up(stalls: list[Stall]) -> None:
    """Everything of this process, in place of what was there."""
    global _own
    changed, _own = stalls != _own, stalls
    if changed and (folder := _folder()):
        path = folder / f"stalled_{os.getpid()}.json"
        if not stalls:
            path.unlink(missing_ok=True)
            return
        half = path.with_suffix(".half")
        half.write_text(json.dumps([[one.reason, one.since.isoformat(), one.partition] for one in stalls]))
        half.replace(path)


def stalls() -> list[Stall]:
    """Of all replicas of this node that live, the longest first; each reason and partition once."""
    found, folder = list(_own), _folder()
    for path in folder.glob("stalled_*.json") if folder else ():
        pid = path.stem.rpartition("_")[2]
        if pid == str(os.getpid()):
            continue
        if not Path("/proc", pid).exists():
            path.unlink(missing_ok=True)
            continue
        with suppress(OSError, ValueError):  # it was taken down this very moment
            found += [
                Stall(reason, datetime.fromisoformat(since), where)
                for reason, since, where in json.loads(path.read_text())
            ]
    return sorted(found, key=lambda one: one.since)


def _folder() -> Path | None:
    named = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(named) if named else None
