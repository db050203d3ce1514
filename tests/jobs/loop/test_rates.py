"""Rates from samples: their intervals cover, and answers that were not drawn move none."""

from random import Random

import pytest

from jobs.loop.rates import Estimate, Rate, Rates, Stratum, estimate, more_answers, rates
from pipeline.contracts.broker import Outgoing
from pipeline.contracts.drawing import drawn, review_rate
from pipeline.contracts.events import Feedback, Verdict
from pipeline.history import History, queue
from pipeline.history.database import HOUR_MS, Position
from pipeline.settings import Settings
from tests.pipeline.history.conftest import postgres, url
from tests.pipeline.history.messages import NOON, NOON_MS, VERSION, inspected, of_event, read

__all__ = ["postgres", "url"]
ROUNDS = 200


def simulated(draw: Random, blind_rate: float, parts: int = 4000) -> tuple[list[Stratum], dict[Rate, float]]:
    """A day of a line: what was drawn and answered, and the truth."""
    defect_rate, missed, overkill = draw.uniform(0.005, 0.03), draw.uniform(0.05, 0.5), draw.uniform(0.002, 0.03)
    counts: dict[Verdict, list[int]] = {"OK": [0, 0, 0, 0], "NotOK": [0, 0, 0, 0], "NotDecidable": [0, 0, 0, 0]}
    for number in range(parts):
        defective = draw.random() < defect_rate
        verdict: Verdict = "NotDecidable" if draw.random() < 0.02 else "OK"
        if verdict == "OK" and draw.random() < (1 - missed if defective else overkill):
            verdict = "NotOK"
        asked = drawn(f"{draw.random()}-{number}", review_rate(verdict, blind_rate, 0.5))
        one = counts[verdict]
        one[0], one[1] = one[0] + 1, one[1] + defective
        one[2], one[3] = one[2] + asked, one[3] + (asked and defective)
    strata = [Stratum(v, 0.0, n, asked, found) for v, (n, _, asked, found) in counts.items()]
    bad = {verdict: one[1] for verdict, one in counts.items()}
    good = {verdict: one[0] - one[1] for verdict, one in counts.items()}
    return strata, {
        "false_reject": good["NotOK"] / sum(good.values()),
        "escape": bad["OK"] / max(1, sum(bad.values())),
        "defective_among_ok": bad["OK"] / counts["OK"][0],
    }


@pytest.mark.parametrize("blind_rate", [0.01, 0.02, 0.05])
def test_intervals_cover(blind_rate: float) -> None:
    draw = Random(round(1000 * blind_rate))
    rounds = [simulated(draw, blind_rate) for _ in range(ROUNDS)]
    for rate in ("false_reject", "escape", "defective_among_ok"):
        covered = sum(
            (found := estimate(rate, strata)).low <= truth[rate] <= found.high  # type: ignore[arg-type]
            for strata, truth in rounds
        )
        print(f"blind {blind_rate:.0%}, {rate}: covered {covered} of {ROUNDS}")  # noqa: T201
        assert covered >= 0.93 * ROUNDS


def test_estimates_are_weighted_by_what_was_drawn() -> None:
    """Of 20 OK parts in 1000 one was defective, so 50 are thought to be; of all flagged ones 30 were."""
    strata = [
        Stratum("OK", 0.02, 1000, 20, 1),
        Stratum("NotOK", 1.0, 40, 40, 30),
        Stratum("NotDecidable", 1.0, 0, 0, 0),
    ]
    assert estimate("escape", strata).value == pytest.approx(50 / 80)
    assert estimate("false_reject", strata).value == pytest.approx(10 / 960)
    among = estimate("defective_among_ok", strata)
    assert among.value == pytest.approx(0.05)
    assert among.low < 0.05 < among.high < 0.26


def test_without_answers_nothing_is_claimed() -> None:
    strata = [Stratum("OK", 0.0, 1000, 0, 0), Stratum("NotOK", 1.0, 10, 0, 0)]
    for rate in ("false_reject", "escape", "defective_among_ok"):
        found = estimate(rate, strata)  # type: ignore[arg-type]
        assert found.value is None
        assert (found.low, found.high) in ((0.0, 1.0), (0.0, 10 / 10))
    assert estimate("escape", []) == Estimate(None, 0.0, 1.0)


def test_all_looked_at_leaves_no_doubt() -> None:
    strata = [Stratum("OK", 1.0, 90, 90, 2), Stratum("NotOK", 1.0, 10, 10, 8)]
    assert estimate("escape", strata) == Estimate(0.2, 0.2, 0.2)
    assert estimate("false_reject", strata) == Estimate(2 / 90, 2 / 90, 2 / 90)
    assert more_answers("escape", strata, 0.01) == {}


def test_how_many_more_answers_are_needed() -> None:
    strata = [Stratum("OK", 0.01, 10_000, 100, 1), Stratum("NotOK", 1.0, 100, 100, 60)]
    need = more_answers("defective_among_ok", strata, 0.02)
    assert need is not None
    assert set(need) == {"OK"}
    more = Stratum("OK", 0.01, 10_000, 100 + need["OK"], round((100 + need["OK"]) / 100))
    assert estimate("defective_among_ok", [more]).width <= 0.021
    assert need["OK"] > 100
    assert more_answers("escape", strata, 0.0) == {"OK": 9900}


@pytest.fixture
def settings(url: str) -> Settings:
    return Settings.from_values({"history": {"url": url}})


def test_rates_of_a_history(settings: Settings) -> None:
    """All doubtful and flagged parts are drawn, of the OK ones a few; one person answers, two differ once."""
    said = []
    for number in range(200):
        event = inspected(2 * number, settings)  # all of one product
        rate = review_rate(event.verdict, 0.1, 1.0)
        said.append(event.model_copy(update={"review": drawn(event.event_id, rate), "review_rate": rate}))
    topics = settings.topics
    records = [read(of_event(event, settings), n, at_ms=NOON_MS) for n, event in enumerate(said)]
    given = []
    for number, event in enumerate(said):
        answer = "defect" if event.verdict == "NotOK" else "good"
        if event.review:
            given.append((event, "anna", answer))
        elif number == 0:
            given.append((event, "anna", "defect"))  # reported by somebody: was not drawn
    conflict = next(event for event in said if event.verdict == "NotDecidable")
    given.append((conflict, "bert", "defect"))
    for number, (event, person, answer) in enumerate(given):
        about = {name: getattr(event, name) for name in ("event_id", "image_id", "camera", "product", "model_version")}
        values = {**about, "feedback_id": f"f{number}", "answer": answer, "person": person, "given_at": NOON}
        value = Feedback.model_validate(values).model_dump_json().encode()
        records.append(read(Outgoing(topics.feedback, b"/c", value), number))
    with History(settings) as history:
        moved = {(topics.events, 0): Position(len(said)), (topics.feedback, 0): Position(len(given))}
        history.write(records, {}, moved)
        (found,) = rates(history, said[0].product)
        assert rates(history, said[0].product, since_ms=NOON_MS + HOUR_MS) == []
        assert rates(history, "none") == []
        waiting = queue(history, said[0].product)
    assert not waiting, "all that were drawn are answered"
    assert (found.version, found.parts) == (VERSION, 200)
    assert (found.reported, found.conflicts) == (1, 1)
    by_verdict = {stratum.verdict: stratum for stratum in found.strata}
    ok = [event for event in said if event.verdict == "OK"]
    assert by_verdict["OK"] == Stratum("OK", 0.1, len(ok), sum(event.review for event in ok), 0)
    assert by_verdict["NotOK"].answered == by_verdict["NotOK"].defective == by_verdict["NotOK"].parts
    assert by_verdict["NotDecidable"].answered == by_verdict["NotDecidable"].parts - 1
    assert found.estimate("escape").value == 0
    assert 0 < found.estimate("escape").high < 0.9
    assert isinstance(found, Rates)


def test_a_draw_is_the_same_whoever_asks_and_as_often_as_it_says() -> None:
    some = [f"event-{number}" for number in range(20_000)]
    share = sum(drawn(one, 0.02) for one in some) / len(some)
    assert share == pytest.approx(0.02, abs=0.004)
    assert all(drawn(one, 0.05) for one in some if drawn(one, 0.02))
    assert not any(drawn(one, 0.0) for one in some)
    assert all(drawn(one, 1.0) for one in some)
