"""How often a version is wrong on live parts, from the answers of people.

Parts fall into strata: by verdict, and by the probability with which parts of it were drawn for people. Within a
stratum those drawn and answered count as a simple random sample, so the number of defective parts in it has an exact
interval (`model.measures.finite`); estimates are Horvitz and Thompson's: what is found, over the share that was looked
at. A rate is a ratio of sums over strata. Its limits are those at the ends of the strata's intervals, each at the
confidence that leaves 95% for all of them together (Bonferroni), so they cover at least as often as they say.

Answers to parts that were not drawn, such as a defect that somebody reported, are told and enter no rate: they say
nothing of the parts beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import func, select

from model.measures.finite import number_interval
from model.measures.proportions import CONFIDENCE
from pipeline.contracts.events import Verdict
from pipeline.history import History, answers
from pipeline.history.database import HOUR_MS
from pipeline.history.tables import events, hours

Rate = Literal["false_reject", "escape", "defective_among_ok"]
RATES: dict[Rate, str] = {
    "false_reject": "of good parts, how many were NotOK",
    "escape": "of defective parts, how many were OK",
    "defective_among_ok": "of parts taken as OK, how many are defective",
}


@dataclass(frozen=True)
class Stratum:
    """Parts of one verdict that were drawn with one probability.

    parts: all of them. answered: of those drawn, how many people agree on. defective: of these.
    """

    verdict: Verdict
    drawn_at: float
    parts: int
    answered: int
    defective: int

    @property
    def estimate(self) -> float | None:
        """Defective parts in it; None where nobody was asked."""
        if not self.answered:
            return None if self.parts else 0.0
        return self.parts * self.defective / self.answered

    @property
    def known(self) -> bool:
        """Whether all were looked at."""
        return self.answered == self.parts


@dataclass(frozen=True)
class Estimate:
    """A share with its 95% interval. value: None where it can't be told, for nothing was looked at or found."""

    value: float | None
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Rates:
    """Of one version. reported: answers to parts that were not drawn. conflicts: parts that people differ on."""

    product: str
    version: str
    strata: tuple[Stratum, ...]
    reported: int
    conflicts: int

    @property
    def parts(self) -> int:
        return sum(stratum.parts for stratum in self.strata)

    @property
    def answered(self) -> int:
        return sum(stratum.answered for stratum in self.strata)

    def estimate(self, rate: Rate) -> Estimate:
        return estimate(rate, self.strata)


def estimate(rate: Rate, strata: Sequence[Stratum]) -> Estimate:
    """One of the rates, over all strata."""
    if rate == "defective_among_ok":
        strata = [stratum for stratum in strata if stratum.verdict == "OK"]
    open_ = [stratum for stratum in strata if not stratum.known]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(open_))
    limits = [number_interval(one.defective, one.answered, one.parts, confidence) for one in strata]
    counted: Verdict = "NotOK" if rate == "false_reject" else "OK"
    inside = [stratum.verdict == counted for stratum in strata]
    values = [stratum.estimate for stratum in strata]
    if rate == "defective_among_ok":
        parts = sum(stratum.parts for stratum in strata)
        if not parts:
            return Estimate(None, 0.0, 1.0)
        low, high = (sum(limit[end] for limit in limits) / parts for end in (0, 1))
        told = [value for value in values if value is not None]
        return Estimate(sum(told) / parts if len(told) == len(values) else None, low, high)
    if rate == "false_reject":  # of good parts
        limits = [(one.parts - high, one.parts - low) for one, (low, high) in zip(strata, limits, strict=True)]
        values = [None if value is None else one.parts - value for one, value in zip(strata, values, strict=True)]
    low, high = (_at_the_end(limits, inside, end) for end in (0, 1))
    return Estimate(_share(values, inside), low, high)


def _at_the_end(limits: Sequence[tuple[int, int]], inside: Sequence[bool], end: int) -> float:
    """The least (0) or the largest (1) share of those inside: few of them and many of the others, or the reverse."""
    mine = sum(limit[end] for limit, counts in zip(limits, inside, strict=True) if counts)
    others = sum(limit[1 - end] for limit, counts in zip(limits, inside, strict=True) if not counts)
    return mine / (mine + others) if mine + others else float(end)


def _share(values: Sequence[float | None], inside: Sequence[bool]) -> float | None:
    if any(value is None for value in values):
        return None
    mine = sum(value for value, counts in zip(values, inside, strict=True) if counts and value)
    total = sum(value for value in values if value)
    return mine / total if total else None


def more_answers(rate: Rate, strata: Sequence[Stratum], width: float) -> dict[Verdict, int] | None:
    """How many more answers, by verdict, make the interval as narrow, if they are like those so far.

    The stratum whose answers help most is asked first, in steps. None: not even all of them would.
    """
    found: dict[Verdict, int] = {}
    now = list(strata)
    while estimate(rate, now).width > width:
        tries = [(i, _with_more(one, strata[i])) for i, one in enumerate(now) if not one.known]
        if not tries:
            return None
        i, best = min(tries, key=lambda one: estimate(rate, [*now[: one[0]], one[1], *now[one[0] + 1 :]]).width)
        found[best.verdict] = found.get(best.verdict, 0) + best.answered - now[i].answered
        now[i] = best
    return found


def _with_more(stratum: Stratum, like: Stratum) -> Stratum:
    """A tenth more answers, of which as many are defective as of those of `like`."""
    answered = min(stratum.parts, stratum.answered + max(10, stratum.answered // 10))
    share = like.defective / like.answered if like.answered else 0.0
    return replace(stratum, answered=answered, defective=round(share * answered))


def rates(history: History, product: str, since_ms: int | None = None) -> list[Rates]:
    """Of each version that scored parts of the product, the newest first; since the hour in which `since_ms` lies.

    Raises:
        HistoryUnavailable: no answer.
    """
    since_ms = since_ms // HOUR_MS * HOUR_MS if since_ms is not None else 0
    parts: dict[tuple[str, Verdict, float], int] = {}
    keys = (hours.c.model_version, hours.c.verdict, hours.c.review_rate)
    counted = select(*keys, func.sum(hours.c.events)).where(hours.c.product == product, hours.c.hour_ms >= since_ms)
    with history.reads() as connection:
        for version, verdict, rate, number in connection.execute(counted.group_by(*keys)):
            parts[version, verdict, rate] = int(number)
        opinions = _opinions(history, product)
        asked = select(
            events.c.event_id, events.c.model_version, events.c.verdict, events.c.review, events.c.review_rate
        ).where(events.c.product == product, events.c.at_ms >= since_ms)
        answered: dict[tuple[str, Verdict, float], list[bool]] = {}
        reported: dict[str, int] = {}
        conflicts: dict[str, int] = {}
        for some in _in_slices(sorted(opinions)):
            for row in connection.execute(asked.where(events.c.event_id.in_(some))):
                defective = opinions[row.event_id]
                if defective is None:
                    conflicts[row.model_version] = conflicts.get(row.model_version, 0) + 1
                elif row.review:
                    answered.setdefault((row.model_version, row.verdict, row.review_rate), []).append(defective)
                else:
                    reported[row.model_version] = reported.get(row.model_version, 0) + 1
    found = []
    for version in sorted({version for version, _, _ in parts}, reverse=True):
        strata = tuple(
            Stratum(verdict, rate, number, len(said := answered.get((own, verdict, rate), [])), sum(said))
            for (own, verdict, rate), number in sorted(parts.items())
            if own == version
        )
        found.append(Rates(product, version, strata, reported.get(version, 0), conflicts.get(version, 0)))
    return found


def _opinions(history: History, product: str) -> dict[str, bool | None]:
    """Event to whether people say that it is defective; None where they differ. Those who are unsure say nothing."""
    return {
        row["event_id"]: None if row["conflict"] else row["answer"] == "defect"
        for row in answers(history, product)
        if row["answer"] != "unsure"
    }


def _in_slices(identifiers: Sequence[str], size: int = 500) -> list[Sequence[str]]:
    return [identifiers[i : i + size] for i in range(0, len(identifiers), size)]
