"""How often somebody began at a message: kept in the metadata of the group's committed offset.

An image that kills the process that decodes it leaves no trace but an offset that does not move. So a member notes at
the offset that it begins there. Whoever begins where two have before takes the messages behind it up one by one, each
alone and noted as such, until it is past everything that can have been in flight; one that was taken up alone too
often and never finished is set aside. A commit past the message clears the note.

Who took it up alone is noted too: members also lose partitions while they live, to others that join or leave, and that
is no fault of the image. And so is the topic that the offset is of, by its id: one that is made anew has the same name,
and whoever took an offset of the old one for one of its own would leave out what lies before it.
"""

import re
from dataclasses import dataclass

_NOTE = re.compile(r"linewatch begun=(\d{1,6}) alone=(\d{1,6})(?: by=(\S{1,64}))?(?: topic=(\S{1,64}))?")


@dataclass(frozen=True)
class Attempts:
    """How often a member began at this offset, how often its message was taken up alone and by whom last, and the id of
    the topic."""

    begun: int = 0
    alone: int = 0
    by: str = ""
    topic: str = ""

    def note(self) -> str:
        """As the offset's metadata."""
        if not (self.begun or self.alone or self.topic):
            return ""
        told = [f"{name}={value}" for name, value in (("by", self.by), ("topic", self.topic)) if value]
        return " ".join([f"linewatch begun={self.begun} alone={self.alone}", *told])

    @classmethod
    def read(cls, metadata: str | None) -> "Attempts":
        """From the offset's metadata; anything else, written by other tools, counts as nothing."""
        found = _NOTE.fullmatch(metadata or "")
        return cls(int(found[1]), int(found[2]), found[3] or "", found[4] or "") if found else cls()
