"""What another version changes: counted by verdict, measured by score, named by image."""

import json

import pytest

from jobs.past.comparison import VERDICTS, Judgement, compare

OLD, NEW = "20260101T000000Z-0123abcd", "20260201T000000Z-0123abcd"


def old(name: str, verdict: str, score: float, version: str = OLD) -> Judgement:
    return Judgement(name, version, verdict, score)  # type: ignore[arg-type]


def new(name: str, verdict: str, score: float) -> Judgement:
    return old(name, verdict, score, NEW)


BEFORE = {
    (0, 0): old("a", "OK", 0.5),
    (0, 1): old("b", "OK", 0.6),
    (1, 0): old("c", "NotOK", 2.0, "20251231T000000Z-0123abcd"),
    (1, 9): old("never rescored", "OK", 0.1),
}
AFTER = {
    (0, 0): new("a", "OK", 0.4),
    (0, 1): new("b", "NotDecidable", 1.0),
    (1, 0): new("c", "NotOK", 1.0),
    (1, 1): new("no live event", "OK", 0.3),
}


def test_verdicts_are_counted_from_before_to_after() -> None:
    found = compare(BEFORE, AFTER, most=10)
    assert (found.compared, found.without_live_event, found.changed) == (3, 1, 1)
    counts = {(b, a): found.verdicts[b][a] for b in VERDICTS for a in VERDICTS if found.verdicts[b][a]}
    assert counts == {("OK", "OK"): 1, ("OK", "NotDecidable"): 1, ("NotOK", "NotOK"): 1}
    assert found.versions_before == {"20251231T000000Z-0123abcd": 1, OLD: 2}


def test_the_most_changed_images_come_first_whichever_way_they_went() -> None:
    found = compare(BEFORE, AFTER, most=2)
    assert [(one.image_id, one.partition, one.offset) for one in found.most_changed] == [("c", 1, 0), ("b", 0, 1)]
    assert [one.shift for one in found.most_changed] == pytest.approx([-1.0, 0.4])
    assert compare(BEFORE, AFTER, most=0).most_changed == ()


def test_the_shift_is_told_by_median_and_tails() -> None:
    before = {(0, n): old(str(n), "OK", 0.0) for n in range(101)}
    after = {(0, n): new(str(n), "OK", n / 100) for n in range(101)}
    shift = compare(before, after, most=0).shift
    assert shift is not None
    assert (shift.median, shift.p5, shift.p95) == pytest.approx((0.5, 0.05, 0.95))


def test_nothing_in_common_is_no_shift_rather_than_a_wrong_one() -> None:
    found = compare({}, AFTER, most=3)
    assert (found.compared, found.without_live_event, found.shift, found.changed) == (0, 4, None, 0)


def test_the_facts_are_json() -> None:
    facts = json.loads(json.dumps(compare(BEFORE, AFTER, most=1).facts()))
    assert facts["verdicts"]["OK"] == {"OK": 1, "NotDecidable": 1, "NotOK": 0}
    assert facts["verdicts_changed"] == 1
    assert facts["most_changed"][0]["score_after"] == 1.0
