"""What the broker deleted before it was read: as dead letters tell, and where no replica has come by yet."""

from collections import defaultdict

from jobs.audit.books import Books, Deleted


def deleted_unread(books: Books) -> list[Deleted]:
    """Each deleted offset once.

    A replica that finds a gap commits past it together with a dead letter. Until then the group's committed offset lies
    before the oldest one that the broker keeps.
    """
    told = list(books.deleted)
    if books.window.until_ms is None:
        for partition, committed in books.committed_since.items():
            start = books.log_starts.get((books.topic, partition), 0)
            if committed is not None and committed < start:
                told.append(Deleted(partition, committed, start - committed, books.topic_id))
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for one in told:
        ranges[one.topic_id, one.partition].append((one.first, one.first + one.messages))
    return [
        Deleted(partition, first, end - first, topic_id)
        for (topic_id, partition), found in sorted(ranges.items())
        for first, end in _union(found)
    ]


def _union(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return joined
