"""What a run of fits is told and what it comes to: plain values, for they travel to the worker and in checkpoints."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One product to fit: plain values, for they travel to the worker.

    ignore: the fields of an IgnoredArea, which ``fit_products`` fills in from the settings.
    """

    product: str
    digest: str
    parent: str | None
    ignore: dict[str, Any] | None = None


@dataclass
class Outcomes:
    """What a run has come to: product to version, and product to the reason why it can't be fitted.

    stumbled: products that ended one attempt by an error that nobody foresaw, which a new process may not meet.
    """

    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stumbled: dict[str, str] = field(default_factory=dict)
