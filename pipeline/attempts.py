"""How often somebody began at a message: kept in the metadata of the group's committed offset.

An image that kills the process that decodes it leaves no trace but an offset that does not move. So a member notes at
the offset that it begins there. Whoever begins at a noted offset takes the messages behind it up one by one, each alone
and noted as such, until it is past everything that can have been in flight; one that was taken up alone too often and
never finished is set aside. A commit past the message clears the note.
"""

import re
from dataclasses import dataclass

_NOTE = re.compile(r"linewatch begun=(\d{1,6}) alone=(\d{1,6})")


@dataclass(frozen=True)
class Attempts:
    """begun: times that a member began at this offset. alone: times that its message was taken up by itself."""

    begun: int = 0
    alone: int = 0

    def note(self) -> str:
        """As the offset's metadata."""
        return f"linewatch begun={self.begun} alone={self.alone}" if self.begun or self.alone else ""

    @classmethod
    def read(cls, metadata: str | None) -> "Attempts":
        """From the offset's metadata; anything else, written by other tools, counts as nothing."""
        found = _NOTE.fullmatch(metadata or "")
        return cls(int(found[1]), int(found[2])) if found else cls()
