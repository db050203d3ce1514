"""What a run of fits is told: plain values, for they travel to workers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One product to fit.

    ignore: the fields of an IgnoredArea, which ``fit_products`` fills in from the settings. workers: how many processes
    share the fit. work: how long it will take beside others, in no unit.
    """

    product: str
    digest: str
    parent: str | None
    ignore: dict[str, Any] | None = None
    workers: int = 1
    work: float = 0.0
