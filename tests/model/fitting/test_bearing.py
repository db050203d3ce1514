"""What a version is said to bear is what it does bear."""

from __future__ import annotations

import numpy as np
import pytest

from model import Engine, Fit, FitOptions, Frame, ModelBundle
from model.fitting.preparation import prepared
from model.images.tolerance import NOTHING, Tolerance, lit
from tests.model.conftest import SIZE

WIDE = NOTHING.model_copy(update={"light": 0.3, "shift_px": 3})


def fitted(frames: list[Frame], tolerate: Tolerance, **changes: object) -> ModelBundle:
    options = {"size": SIZE, "steps": 3, "batch": 8, "tolerate": tolerate, **changes}
    return Fit("disc", frames[:16], frames[16:], FitOptions.model_validate(options)).run()


def test_who_tolerates_nothing_says_nothing(good_frames: list[Frame]) -> None:
    assert fitted(good_frames, NOTHING).manifest.bearing is None


def test_each_stated_change_is_judged_at_both_ends(good_frames: list[Frame]) -> None:
    manifest = fitted(good_frames, WIDE).manifest
    bearing = manifest.bearing
    assert bearing is not None
    assert [one.change for one in bearing.changes] == ["light -30%", "light +30%", "a shift of 3 px"]
    assert bearing.images == len(good_frames) - 16
    assert f"bears light -30% at {bearing.changes[0].false_reject_rate:.0%}" in bearing.describe().replace(".0%", "%")
    assert "if nothing were tolerated" in bearing.describe()


@pytest.mark.parametrize("evidence", ["statistics", "student"])
def test_the_rates_are_those_of_the_version_itself(good_frames: list[Frame], evidence: str) -> None:
    bundle = fitted(good_frames, WIDE, evidence=evidence)
    engine = Engine(lambda _: bundle, device="cpu")
    held_out = good_frames[16:]
    for place, gain in enumerate((0.7, 1.3)):
        changed = [Frame(lit(frame.pixels, gain), frame.width, frame.height) for frame in held_out]
        scored = engine.score(changed, ["disc"] * len(changed))
        assert bundle.manifest.bearing is not None
        told = bundle.manifest.bearing.changes[place].false_reject_rate
        assert told == np.mean([one.normalised_score >= 1 for one in scored])


def test_the_price_is_told_against_the_same_version_without_tolerance(good_frames: list[Frame]) -> None:
    wide, strict = fitted(good_frames, WIDE).manifest.bearing, fitted(good_frames, NOTHING)
    assert wide is not None
    assert wide.found < wide.found_if_strict
    # The strict one beside it is the version that a fit without tolerance makes: the same share is found.
    told = fitted(good_frames, NOTHING.model_copy(update={"noise": 0.01})).manifest.bearing
    assert told is not None
    assert told.found == pytest.approx(told.found_if_strict, abs=0.1)
    assert told.found_if_strict == wide.found_if_strict
    assert strict.manifest.calibration.threshold > 0


def test_held_out_images_stay_unchanged_beside_their_copies(good_frames: list[Frame]) -> None:
    options = FitOptions(size=SIZE, tolerate=WIDE)
    images = prepared(good_frames[:16], good_frames[16:], options, None)
    pairs = list(zip(images.unchanged, good_frames[16:], images.held_out, strict=True))
    assert all(np.array_equal(one.pixels, given.pixels) for one, given, _ in pairs)
    assert not any(np.array_equal(copy.pixels, given.pixels) for _, given, copy in pairs)
