"""Two versions on the same images: whose verdict changed, and how far the scores moved."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.contracts.events import InspectionEvent, Verdict

VERDICTS: tuple[Verdict, ...] = ("OK", "NotDecidable", "NotOK")
Place = tuple[int, int]  # partition and offset on the images topic


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one version says of one image. ``score`` is normalised: only those compare between versions."""

    image_id: str
    version: str
    verdict: Verdict
    score: float


@dataclass(frozen=True)
class Change:
    image_id: str
    partition: int
    offset: int
    verdict_before: Verdict
    verdict_after: Verdict
    score_before: float
    score_after: float

    @property
    def shift(self) -> float:
        return self.score_after - self.score_before


@dataclass(frozen=True)
class Shift:
    """Of normalised scores, after less before."""

    median: float
    p5: float
    p95: float


@dataclass(frozen=True)
class Comparison:
    """compared: images that both versions judged. verdicts: before to after to their number. shift: None without any.
    most_changed: by the score's distance, largest first. versions_before: to the number of images they judged.
    """

    compared: int
    without_live_event: int
    verdicts: dict[Verdict, dict[Verdict, int]]
    shift: Shift | None
    most_changed: tuple[Change, ...]
    versions_before: dict[str, int]

    @property
    def changed(self) -> int:
        """Images whose verdict is another now."""
        return self.compared - sum(self.verdicts[verdict][verdict] for verdict in VERDICTS)

    def facts(self) -> dict[str, Any]:
        """For a JSON file."""
        return {**asdict(self), "verdicts_changed": self.changed}


def judgement(event: InspectionEvent) -> Judgement:
    return Judgement(event.image_id, event.model_version, event.verdict, event.normalised_score)


def compare(before: Mapping[Place, Judgement], after: Mapping[Place, Judgement], most: int) -> Comparison:
    """``after`` against ``before``, image by image; images without a judgement before are counted and left out."""
    verdicts = {one: dict.fromkeys(VERDICTS, 0) for one in VERDICTS}
    versions: Counter[str] = Counter()
    changes = []
    for place, now in after.items():
        if (then := before.get(place)) is None:
            continue
        verdicts[then.verdict][now.verdict] += 1
        versions[then.version] += 1
        changes.append(Change(now.image_id, *place, then.verdict, now.verdict, then.score, now.score))
    shifts = np.array([change.shift for change in changes])
    changes.sort(key=lambda change: abs(change.shift), reverse=True)
    return Comparison(
        compared=len(changes),
        without_live_event=len(after) - len(changes),
        verdicts=verdicts,
        shift=Shift(*(float(value) for value in np.percentile(shifts, (50, 5, 95)))) if changes else None,
        most_changed=tuple(changes[:most]),
        versions_before=dict(sorted(versions.items())),
    )
