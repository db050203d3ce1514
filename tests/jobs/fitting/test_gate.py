"""A challenger serves only if it is no worse, and a refusal gives every reason."""

from dataclasses import replace

import numpy as np
import pytest

from jobs.fitting.datasets import Item, Snapshot
from jobs.fitting.gate import Judged, Verdict, decide, new_items
from model.measures.probe import Sensitivity
from pipeline.settings import Gate

GATE = Gate()
GOOD = Judged(held_out=40, false_reject_rate=0.0, sensitivity=0.95, labelled_auroc=0.9)


def judged(**changes: object) -> Judged:
    return Judged(**{**vars(GOOD), **changes})  # type: ignore[arg-type]


def probed(lost: float, *, spread: float = 0.01, first: int = 0, images: int = 40) -> Judged:
    """A version that loses so much of .95, of some images more than of others; it was tried on images from first on."""
    numbers = np.arange(first, first + images)
    of_image = 0.95 - lost + (spread * (numbers / 20 - 1) if lost else 0 * numbers)
    probe = Sensitivity(np.repeat(of_image[:, None], images, axis=1))
    return judged(sensitivity=probe.value, probe=probe, probed=tuple(f"{number:064x}" for number in numbers))


@pytest.mark.parametrize(
    ("challenger", "champion", "reasons"),
    [
        # A first version
        (GOOD, None, []),
        (judged(labelled_auroc=None), None, []),
        (judged(sensitivity=0.55), None, []),
        (
            judged(sensitivity=0.54),
            None,
            ["made-up defects from good images with AUROC 0.540 (limit 0.550"],
        ),
        (judged(false_reject_rate=0.05), None, []),
        (judged(false_reject_rate=0.075), None, ["rejects 7.5% of 40 held-out good images (limit 5.0%), 95% interval"]),
        (judged(held_out=8, false_reject_rate=1 / 8), None, []),
        (judged(held_out=8, false_reject_rate=2 / 8), None, ["rejects 25.0% of 8"]),
        (judged(labelled_auroc=0.1), None, []),
        (judged(held_out=0, false_reject_rate=0.0, sensitivity=float("nan")), None, ["no held-out good image"]),
        # Against a champion
        (GOOD, GOOD, []),
        (probed(0.005), probed(0.0), []),
        (probed(0.05), probed(0.0), ["from 0.950 to 0.900, by 0.050 on 40 images (95% interval 0.0"]),
        (probed(0.05, spread=0.3), probed(0.0), []),  # which may be chance
        # Each refused another image: only those that both were tried on are compared, each with itself.
        (probed(0.05, first=1), probed(0.0), ["on 39 images (95% interval 0.0"]),
        (probed(0.05, spread=0.3, first=1), probed(0.05, spread=0.3), []),
        (probed(0.005, images=38), probed(0.0), []),
        (probed(0.0, first=40), probed(0.0), ["on none of the images that the other version was"]),
        (judged(sensitivity=0.5), judged(sensitivity=0.5), []),
        (judged(labelled_auroc=0.88), GOOD, []),
        (
            judged(labelled_auroc=0.87),
            GOOD,
            ["AUROC on labelled images is 0.870 (the champion's is 0.900, limit 0.880)"],
        ),
        (judged(labelled_auroc=None), GOOD, []),
        # In int8
        (judged(float32=GOOD, score_shift_sd=0.5), None, []),
        (judged(float32=GOOD), None, ["does not tell how far int8 moves"]),  # a version of before
        (judged(float32=judged(labelled_auroc=0.902), score_shift_sd=0.01), GOOD, []),
        (judged(float32=judged(labelled_auroc=None), score_shift_sd=0.01), GOOD, []),
        (
            replace(probed(0.01), float32=replace(probed(0.0), labelled_auroc=0.904), score_shift_sd=0.6),
            GOOD,
            [
                "by 0.60 of their deviation in the median (limit 0.50)",
                "int8 lowers the AUROC on made-up defects from 0.950 to 0.940",
                "labelled images from 0.9040 to 0.9000",
            ],
        ),
        (judged(labelled_auroc=0.1), judged(labelled_auroc=None), []),
        (judged(false_reject_rate=0.1), judged(false_reject_rate=0.09), []),
        (judged(false_reject_rate=0.12), judged(false_reject_rate=0.09), ["limit 11.0%"]),
        (
            replace(probed(0.4), false_reject_rate=0.5, labelled_auroc=0.5),
            probed(0.0),
            ["held-out good images", "made-up defects", "labelled images"],
        ),
    ],
)
def test_the_rules(challenger: Judged, champion: Judged | None, reasons: list[str]) -> None:
    verdict = decide(challenger, champion, GATE)
    assert len(verdict.reasons) == len(reasons)
    for reason, part in zip(verdict.reasons, reasons, strict=True):
        assert part in reason
    assert verdict.accepted == (not reasons)
    assert (verdict.challenger, verdict.champion) == (challenger, champion)


def test_settings_move_the_limits() -> None:
    strict = Gate(max_false_reject_rate=0.0, min_sensitivity=0.99, auroc_margin=0.0)
    assert not decide(judged(sensitivity=0.98), None, strict).accepted
    assert not decide(judged(labelled_auroc=0.899), GOOD, strict).accepted
    one, two = (judged(false_reject_rate=count / 40, sensitivity=1.0) for count in (1, 2))
    assert decide(one, None, strict).accepted, "a single image is never a reason"
    assert not decide(two, None, strict).accepted


def test_a_verdict_is_one_line() -> None:
    assert Verdict(True).line() == "accepted"
    assert Verdict(False, ["too slow", "too old"]).line() == "refused: too slow; too old"


def test_new_items_are_those_the_champion_was_not_fitted_on() -> None:
    items = [Item(sha256=str(number) * 64, name=f"{number}.png") for number in range(4)]
    before = Snapshot(product="bottle", good=tuple(items[:2]))
    after = Snapshot(product="bottle", good=(*items[1:], items[0]))
    assert new_items(after, before) == items[2:]
