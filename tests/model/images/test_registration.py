"""Where a part lies is found, taken out, and put back into the map; what has no place is left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model import Engine, Fit, FitOptions, Frame, cut
from model.images.registration import MOST_SHIFT, common_place, moved_along, straightened
from model.images.tolerance import NOTHING, lit, moved
from model.measures.probe import Lead

SIDE = 128


def part(seed: int, right: float = 0, down: float = 0, turn: float = 0, spot: tuple[int, int] | None = None) -> Frame:
    """A plate with two holes and a notch on a darker, noisy ground, moved and turned."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    plate = (abs(y - 64) < 34) & (abs(x - 60) < 42) & ~((y < 44) & (x > 84))
    holes = ((y - 50) ** 2 + (x - 40) ** 2 < 60) | ((y - 78) ** 2 + (x - 82) ** 2 < 90)
    values = np.where(plate & ~holes, 170.0, 60.0)
    if spot:
        values[(y - spot[0]) ** 2 + (x - spot[1]) ** 2 < 20] = 20
    pixels = np.repeat(values[..., None], 3, axis=2)
    pixels = moved(np.clip(pixels, 0, 255).astype(np.uint8), right, down, turn) + rng.normal(0, 3, (SIDE, SIDE, 3))
    return Frame(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), SIDE, SIDE)


def anywhere(seed: int, spot: tuple[int, int] | None = None) -> tuple[Frame, tuple[float, float, float]]:
    right, down, turn = np.random.default_rng((seed, 1)).uniform(-1, 1, 3) * (8, 8, 3)
    return part(seed, right, down, turn, spot), (right, down, turn)


GOOD = [anywhere(seed)[0] for seed in range(24)]


def test_the_good_parts_share_a_place() -> None:
    found = common_place(GOOD)
    assert found.on
    assert found.correlation > 0.95
    assert 4 < found.shift_px < 9
    assert 1 < found.turn_deg < 3
    assert "registration is on: good parts lie" in found.describe()


@pytest.mark.parametrize("gain", [1.0, 0.7])
def test_a_pose_is_found_to_a_fraction_of_a_pixel_in_any_light(gain: float) -> None:
    registration = common_place(GOOD)
    at_home = registration.pose(part(100))
    for seed in range(30, 50):
        frame, (right, down, turn) = anywhere(seed)
        pose = registration.pose(Frame(lit(frame.pixels, gain), SIDE, SIDE))
        assert abs((pose.right - at_home.right) * SIDE - right) < 0.4
        assert abs((pose.down - at_home.down) * SIDE - down) < 0.4
        assert abs(abs(math.degrees(pose.turn - at_home.turn)) - abs(turn)) < 0.3


def test_straightened_parts_lie_alike() -> None:
    registration = common_place(GOOD)
    frames = [anywhere(seed)[0] for seed in range(30, 40)]
    before, after = (
        np.std([frame.pixels.astype(float) for frame in some], axis=0).mean()
        for some in (frames, [straightened(frame, registration.pose(frame)) for frame in frames])
    )
    assert after < 0.35 * before


def test_a_map_is_moved_to_where_the_part_lies() -> None:
    registration = common_place(GOOD)
    for seed in range(60, 70):
        frame, _ = anywhere(seed, spot=(70, 50))
        pose = registration.pose(frame)
        dark = (straightened(frame, pose).pixels.mean(axis=2) < 40).astype(np.float32)
        back = moved_along(dark, pose)
        there = frame.pixels.mean(axis=2) < 40
        centre_back, centre = (np.argwhere(mask).mean(axis=0) for mask in (back > 0.5, there))
        assert np.abs(centre_back - centre).max() < 1


def test_textures_and_parts_that_lie_still_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    cloth = [Frame(rng.integers(80, 170, (SIDE, SIDE, 3), dtype=np.uint8), SIDE, SIDE) for _ in range(12)]
    texture, still = common_place(cloth), common_place([part(seed) for seed in range(12)])
    assert not texture.on
    assert "no place in common" in texture.describe()
    assert not still.on
    assert "nothing to gain" in still.describe()


def test_blank_and_far_off_images_are_judged_where_they_lie() -> None:
    registration = common_place(GOOD)
    blank = Frame(np.full((SIDE, SIDE, 3), 90, np.uint8), SIDE, SIDE)
    far = part(3, right=3 * MOST_SHIFT * SIDE)
    for frame in (blank, far):
        pose = registration.pose(frame)
        assert max(abs(pose.right), abs(pose.down)) <= MOST_SHIFT
        if pose.still:
            assert straightened(frame, pose) is frame
    assert registration.pose(blank).still


def test_it_is_off_where_its_worth_can_not_be_told_from_nothing() -> None:
    found = common_place(GOOD)
    assert found.judged(0.02, 0.01, 0.03).on
    off = found.judged(0.02, -0.01, 0.05)
    assert not off.on
    assert "registration stays off: good parts lie" in off.describe()
    assert "+2.0 points of AUROC (95% interval -1.0 to +5.0)" in off.describe()


@pytest.mark.parametrize("others", [{"tiles": True}, {"ignore": "area.png"}, {"evidence": "student"}])
def test_what_it_can_not_be_had_with_is_refused(others: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"fit\.align can't be had together with"):
        FitOptions.model_validate({"align": True, **others})


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_version_finds_a_defect_where_it_is_on_a_part_that_moved(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of eight drawn images nobody can tell what it is worth, and this is about where masks lie.
    monkeypatch.setattr("model.fitting.preparation.gain", lambda *_: Lead(0.02, 0.01, 0.03))
    if backend == "openvino":
        pytest.importorskip("openvino", reason="the package openvino is not installed")
    options = FitOptions(size=SIDE, steps=10, batch=4, corruptions=1, align=True, tolerate=NOTHING)
    bundle = Fit("plate", GOOD[:16], GOOD[16:], options).run()
    registration = bundle.manifest.preprocessing.registration
    assert registration is not None
    assert registration.gain_interval == (0.01, 0.03)
    assert registration.on
    engine = Engine(lambda _: bundle, device="cpu", backend=backend)  # type: ignore[arg-type]
    found = 0
    for seed in range(80, 88):
        frame, _ = anywhere(seed, spot=(70, 50))
        (scored,) = engine.score([frame], ["plate"])
        assert scored.anomaly_map.max() == pytest.approx(scored.normalised_score, rel=1e-5)
        if scored.verdict == "OK":
            continue
        found += 1
        centre = np.argwhere(frame.pixels.mean(axis=2) < 40).mean(axis=0)
        (region, *_) = cut(scored).regions
        assert region.y - 4 <= centre[0] <= region.y + region.height + 4
        assert region.x - 4 <= centre[1] <= region.x + region.width + 4
    assert found >= 6


def test_its_worth_is_measured_on_the_good_images_alone() -> None:
    options = FitOptions(size=SIDE, steps=1, batch=4, corruptions=0, align=True, tolerate=NOTHING)
    registration = Fit("plate", GOOD[:16], GOOD[16:], options).run().manifest.preprocessing.registration
    assert registration is not None
    assert registration.gain is not None
    assert registration.gain_interval is not None
    low, high = registration.gain_interval
    assert low < registration.gain < high
    assert registration.on == (low > 0)
