"""Which parts people are asked about: all doubtful ones, and of the others a random share, drawn blindly.

The draw follows from the event's id: whoever asks again, and a replica that publishes again, draws the same. That each
event says with which probability it was drawn is what rates are estimated from later (Horvitz and Thompson, *A
generalization of sampling without replacement from a finite universe*, JASA 1952).
"""

import hashlib

from pipeline.contracts.events import Verdict

_DIGITS = 13
"""Hex digits that a draw is made from: as many as a float holds."""


def drawn(event_id: str, rate: float) -> bool:
    """Whether an event is among the share `rate`, 0 to 1, of all; what a rate draws, a higher one draws, too."""
    digest = hashlib.sha256(f"review\n{event_id}".encode()).hexdigest()[:_DIGITS]
    return int(digest, 16) < rate * 16.0**_DIGITS


def review_rate(verdict: Verdict, blind_rate: float, flagged_rate: float) -> float:
    """With which probability a part of a verdict is drawn."""
    return {"OK": blind_rate, "NotOK": flagged_rate, "NotDecidable": 1.0}[verdict]
