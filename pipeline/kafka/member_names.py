"""What members of the group are called: their transactional ids, and the instance ids of static ones.

Whoever opens a producer under a transactional id fences the one before. A replica that starts with a rank shall fence
what had that rank before it, and nobody else. Ranks are unique within one cluster, and the group may have members of
two for a while: an upgrade of Ray starts the new cluster beside the old one. With ranks alone the two would fence each
other for ever, so a name has the cluster's mark, too. Which of two members a partition belongs to is decided by the
group's generation, and not by these names.
"""

import hashlib
import re
from collections.abc import Callable

_MARK_DIGITS = 8


def cluster_mark(identity: str) -> str:
    """Short and the same on all nodes, from what identifies a cluster."""
    return hashlib.sha256(identity.encode()).hexdigest()[:_MARK_DIGITS]


def member_name(group: str, rank: Callable[[], int], cluster: str) -> str:
    """Such as `linewatch-0@1f2e3d4c`; `linewatch-0` where there is no cluster."""
    return f"{group}-{rank()}" + (f"@{cluster}" if cluster else "")


def is_member_name(group: str, name: str) -> bool:
    """Of this group, whatever cluster it is of."""
    return bool(re.fullmatch(rf"{re.escape(group)}-\d+(@[0-9a-f]{{{_MARK_DIGITS}}})?", name))
