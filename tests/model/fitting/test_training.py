from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from model import Engine, Fit, FitError, FitOptions, Frame, ModelBundle, StepReport
from model.fitting.steps import batch_indexes, joined_images, learning_rate
from model.images.tolerance import NOTHING

Options = Callable[..., FitOptions]


class Stopped(Exception):
    pass


def test_a_fit_reports_its_phases_in_order(good_frames: list[Frame], small_options: Options) -> None:
    reports: list[StepReport] = []
    fit = Fit("disc", good_frames[:16], good_frames[16:], small_options())
    fit.run(reports.append)
    assert [report.phase for report in reports] == ["features"] * 3 + ["training"] * 3 + ["calibration"]
    assert [report.step for report in reports if report.phase == "training"] == [1, 2, 3]
    shown = {one for step in range(3) for one in fit._shows(step)}
    assert 8 < len(shown) <= 24
    # Images, the spoiled copies that three steps of eight images show, and no tolerated ones.
    assert [report.step for report in reports if report.phase == "features"] == [16, 32, 16 + len(shown)]
    assert all(math.isfinite(report.loss) == (report.phase == "training") for report in reports)


def test_fitting_lowers_the_loss(good_frames: list[Frame], small_options: Options) -> None:
    losses: list[float] = []
    fit = Fit("disc", good_frames[:16], good_frames[16:], small_options(steps=25))
    fit.run(lambda report: losses.append(report.loss) if report.phase == "training" else None)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_the_same_seed_gives_the_same_weights(
    bundle: ModelBundle, good_frames: list[Frame], small_options: Options
) -> None:
    torch.manual_seed(99)  # what the process drew before does not matter
    again = Fit("disc", good_frames[:16], good_frames[16:], small_options()).run()
    assert again.weights == bundle.weights
    assert again.manifest.calibration == bundle.manifest.calibration
    other = Fit("disc", good_frames[:16], good_frames[16:], small_options(seed=1)).run()
    assert other.weights != bundle.weights


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_restored_fit_ends_at_the_same_bits(
    stop_after: int, bundle: ModelBundle, good_frames: list[Frame], small_options: Options
) -> None:
    states: list[bytes] = []
    interrupted = Fit("disc", good_frames[:16], good_frames[16:], small_options())

    def stop(report: StepReport) -> None:
        if report.phase == "training" and report.step == stop_after:
            states.append(interrupted.state())
            raise Stopped

    with pytest.raises(Stopped):
        interrupted.run(stop)
    resumed = Fit("disc", good_frames[:16], good_frames[16:], small_options())
    resumed.restore(states[0])
    assert resumed.step == stop_after
    assert resumed.run().weights == bundle.weights


def test_fitting_leaves_the_global_random_state_alone(good_frames: list[Frame], small_options: Options) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Fit("disc", good_frames[:16], good_frames[16:], small_options(steps=1)).run()
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_another_fit_is_refused(good_frames: list[Frame], small_options: Options) -> None:
    state = Fit("disc", good_frames[:16], good_frames[16:], small_options()).state()
    with pytest.raises(FitError, match="options differ"):
        Fit("disc", good_frames[:16], good_frames[16:], small_options(seed=3)).restore(state)
    with pytest.raises(FitError, match="train_images differ"):
        Fit("disc", good_frames[1:17], good_frames[16:], small_options()).restore(state)
    with pytest.raises(FitError, match="cannot be read"):
        Fit("disc", good_frames[:16], good_frames[16:], small_options()).restore(state[:50])


def test_what_is_tolerated_is_learned_and_calibrated_with(good_frames: list[Frame], small_options: Options) -> None:
    """A version that was told to bear other light takes a darker part for more usual than one that was not."""
    dark = [Frame((frame.pixels * 0.7).astype(np.uint8), 320, 240) for frame in good_frames[16:]]
    scores = {}
    for name, tolerate in (("nothing", NOTHING), ("light", NOTHING.model_copy(update={"light": 0.3}))):
        made = Fit("disc", good_frames[:16], good_frames[16:], small_options(tolerate=tolerate)).run()
        assert made.manifest.tolerance == tolerate
        judged = Engine(lambda _, made=made: made).score(dark, ["disc"] * len(dark))
        scores[name] = float(np.mean([one.normalised_score for one in judged]))
        assert made.manifest.calibration.heldout_images == len(good_frames[16:]), "copies are no further images"
    assert scores["light"] < 0.8 * scores["nothing"]


def test_features_on_disk_give_the_same_scores(
    bundle: ModelBundle, good_frames: list[Frame], small_options: Options
) -> None:
    on_disk = Fit("disc", good_frames[:16], good_frames[16:], small_options(cache_limit_bytes=0)).run()
    assert on_disk.manifest.heldout_scores == pytest.approx(bundle.manifest.heldout_scores, rel=2e-3)


def test_a_disk_too_full_for_features_is_told(
    monkeypatch: pytest.MonkeyPatch, good_frames: list[Frame], small_options: Options
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(FitError, match=r"features of \d+ images take \d+ MB more in .*: No space left on device"):
        Fit("disc", good_frames[:16], good_frames[16:], small_options(cache_limit_bytes=0)).run()


def test_too_few_images_are_refused(good_frames: list[Frame], small_options: Options) -> None:
    with pytest.raises(FitError, match="to train on"):
        Fit("disc", good_frames[:3], good_frames[16:], small_options())
    with pytest.raises(FitError, match="held out"):
        Fit("disc", good_frames[:16], good_frames[16:18], small_options())


def test_frames_of_another_size_are_refused(good_frames: list[Frame], small_options: Options) -> None:
    with pytest.raises(ValueError, match="options' size is 128"):
        Fit("disc", good_frames[:16], good_frames[16:], small_options(size=128))


def test_images_that_are_all_alike_still_fit(small_options: Options) -> None:
    blank = [Frame(np.zeros((64, 64, 3), dtype=np.uint8), 64, 64)] * 16
    try:
        made = Fit("blank", blank[:10], blank[10:], small_options()).run()
    except FitError:
        return
    assert made.manifest.calibration.threshold > 0


def test_batches_walk_through_all_images_before_they_repeat(small_options: Options) -> None:
    options = small_options(batch=8)
    seen = [index for step in range(4) for index in batch_indexes(options, images=16, step=step)]
    assert sorted(seen[:16]) == list(range(16))
    assert sorted(seen[16:]) == list(range(16))
    assert seen[:16] != seen[16:]
    assert len(batch_indexes(options, images=5, step=0)) == 8


def test_the_fused_maps_of_half_of_the_images_are_withheld(small_options: Options) -> None:
    options = small_options()
    steps = [joined_images(options, 0.5, step) for step in range(400)]
    assert all(len(step) == options.batch and set(step) <= {0.0, 1.0} for step in steps)
    assert np.mean(steps) == pytest.approx(0.5, abs=0.06)
    assert steps[7] == joined_images(options, 0.5, 7)
    assert steps[7:12] != steps[8:13]


def test_learning_rate_warms_up_and_falls_to_zero(small_options: Options) -> None:
    options = small_options(steps=100)
    rates = [learning_rate(options, "standardised", step) for step in range(100)]
    assert rates[0] < rates[10] < max(rates) <= 0.002
    assert rates[-1] < 1e-5
    assert {learning_rate(options, "cosine", step) for step in range(100)} == {0.005}


def test_the_manifest_tells_how_it_was_fitted(bundle: ModelBundle) -> None:
    manifest = bundle.manifest
    assert manifest.product == "disc"
    assert manifest.training.steps == 3
    assert manifest.training.images == 16
    assert len(manifest.training.explained_variance) == 3
    assert sum(manifest.training.level_importance) == pytest.approx(1)
    assert set(manifest.training.level_weights) >= {"geometry.1", "semantics.3"}
    assert manifest.backbone.weights_sha256.startswith("57934424")
    assert manifest.calibration.heldout_images == 8


def test_a_fit_stops_early_where_the_held_out_loss_no_longer_falls(
    good_frames: list[Frame], small_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.fitting.training._LOOK_EVERY", 2)
    patient = Fit("disc", good_frames[:16], good_frames[16:], small_options(steps=12, patience=12))
    assert patient.run().manifest.training.steps == 12
    assert 0 < patient._least_loss < math.inf
    stalled = Fit("disc", good_frames[:16], good_frames[16:], small_options(steps=12, patience=4))
    stalled._least_loss = -1.0  # no loss is below
    assert stalled.run().manifest.training.steps == 4


def test_looking_at_held_out_images_changes_no_weights(
    bundle: ModelBundle, good_frames: list[Frame], small_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.fitting.training._LOOK_EVERY", 1)
    states: list[tuple[bytes, float]] = []
    fit = Fit("disc", good_frames[:16], good_frames[16:], small_options(patience=100))
    found = fit.run(
        lambda report: states.append((fit.state(), fit._least_loss)) if report.phase == "training" else None
    )
    assert found.weights == bundle.weights
    resumed = Fit("disc", good_frames[:16], good_frames[16:], small_options(patience=100))
    state, least = states[1]
    resumed.restore(state)
    assert resumed._least_loss == least < math.inf


def test_features_can_come_from_a_fit_before(
    bundle: ModelBundle, good_frames: list[Frame], small_options: Options
) -> None:
    first = Fit("disc", good_frames[:16], good_frames[16:], small_options(method="plain"))
    first.run()
    phases: list[str] = []
    second = Fit("disc", good_frames[:16], good_frames[16:], small_options(), features=first.features)
    assert second.run(lambda report: phases.append(report.phase)).weights == bundle.weights
    assert "features" not in phases
