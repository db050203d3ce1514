"""Decides what of the output topics is kept in SQL, once each, and how it is asked."""

from pipeline.history.database import History, throw_away
from pipeline.history.following import Following, followed
from pipeline.history.queries import Axis, Count, Query, answers, counts, event, events, missing, queue

__all__ = [
    "Axis",
    "Count",
    "Following",
    "History",
    "Query",
    "answers",
    "counts",
    "event",
    "events",
    "followed",
    "missing",
    "queue",
    "throw_away",
]
