"""What an audit found."""

from dataclasses import asdict, dataclass
from typing import Any

TROUBLES = {
    "lost": "images with neither event nor dead letter, and those deleted unread",
    "deleted_unread": "images among the lost that the broker deleted before they were read",
    "doubled_same_id": "images with copies of one event, or of one dead letter",
    "doubled_other": "images with different events, or an event and a dead letter",
    "events_unexplained": "events or dead letters of no image in the log",
    "masks_missing": "events whose mask is not there",
    "masks_doubled": "masks beyond one for each event",
    "masks_wrong": "masks with another sha256 than their event says",
    "masks_orphaned": "masks or heat maps whose event is not there",
    "objects_missing": "claim checks whose object is gone from S3",
}
# Copies that at-least-once delivery may leave: readers can tell them by their event id.
COPIES = ("doubled_same_id", "masks_doubled")


@dataclass(frozen=True)
class Example:
    """One record in trouble."""

    topic: str
    partition: int
    offset: int
    image_id: str
    camera: str


@dataclass(frozen=True)
class PartitionCount:
    """One partition of the images. Counted are the images from offset ``first`` up to but not ``end``."""

    partition: int
    first: int
    end: int
    images: int
    events: int
    deadletters: int
    pending: int
    lost: int
    doubled: int


@dataclass(frozen=True)
class Audit:
    """Figures of one window. Images at or above the group's committed offset are pending, and nothing else."""

    topic: str
    group: str
    since: str | None
    until: str | None
    exactly_once: bool
    partitions: list[PartitionCount]
    verdicts: dict[str, int]
    deadletters: dict[str, int]
    masks: int
    heat_maps: int
    troubles: dict[str, int]
    examples: dict[str, list[Example]]
    longest_gap_s: dict[str, float]  # camera to the longest time between the publications of two events in a row
    notes: list[str]

    @property
    def off(self) -> list[str]:
        """The kinds of trouble that break what this broker promises."""
        allowed = () if self.exactly_once else COPIES
        return [kind for kind, count in self.troubles.items() if count and kind not in allowed]

    @property
    def right(self) -> bool:
        return not self.off

    def total(self, figure: str) -> int:
        """A figure of the partitions, summed."""
        return sum(getattr(partition, figure) for partition in self.partitions)

    def figures(self) -> dict[str, Any]:
        """Plain values for JSON, with each kind of trouble as a figure of its own."""
        values = asdict(self)
        totals = {name: self.total(name) for name in ("images", "pending", "events", "doubled")}
        return {"right": self.right, "off": self.off, **totals, **values.pop("troubles"), **values}
