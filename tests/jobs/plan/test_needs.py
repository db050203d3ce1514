"""What a plan says is needed: by hand where arithmetic decides."""

import numpy as np
import pytest

from jobs.plan.assumptions import Assumptions, Demand
from jobs.plan.breaks import limits
from jobs.plan.gpus import PEAK_TFLOP_S, by_peak, times_for
from jobs.plan.needs import MOST_PARTITIONS, loads, needs, of_replicas
from jobs.plan.scenarios import all_of_them, sample
from jobs.plan.times import POINTS, FitCost, ServiceTimes, SizeCost, Timed
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from tests.jobs.plan.constant import constant

SETTINGS = Settings.from_values({})
EVEN = Assumptions(placement="even")


def demand(cameras: int = 100, fps: float = 1.0, image_bytes: int = 60_000, products: int = 1) -> Demand:
    return Demand(products=products, cameras=cameras, fps=fps, image_bytes=image_bytes)


def test_replicas_follow_from_the_busiest_stage() -> None:
    plan = needs(demand(cameras=280), constant(prepare=0.01, score=0.025), SETTINGS, EVEN)
    assert plan.busiest == "score"
    assert plan.capacity_per_s == pytest.approx(40)
    assert plan.replicas == 10, "280 images a second at 70% of 40"
    assert plan.partitions == 40
    assert plan.hottest == pytest.approx(28 / 40)
    decoding = needs(demand(cameras=280), constant(prepare=0.05, score=0.025), SETTINGS, EVEN)
    assert (decoding.busiest, decoding.replicas) == ("prepare", 20)
    talking = needs(demand(cameras=280), constant(score=0.02, poll=0.02, commit=0.02), SETTINGS, EVEN)
    assert (talking.busiest, talking.replicas) == ("poll and commit", 16)


def test_cameras_that_crowd_by_their_keys_cost_replicas() -> None:
    by_hash = needs(demand(cameras=280), constant(score=0.025), SETTINGS, Assumptions())
    assert by_hash.replicas > by_hash.replicas_if_even == 10
    on = loads(280, by_hash.partitions, "hash")
    assert on.sum() == 280
    assert by_hash.hottest == pytest.approx(of_replicas(on, by_hash.replicas).max() / 40)
    assert by_hash.hottest <= Assumptions().hottest


def test_a_camera_that_no_replica_bears_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"a camera of 50 images a second is more than one replica bears \(36, by score"
    ):
        needs(demand(fps=50), constant(score=0.025), SETTINGS, Assumptions())


def test_more_partitions_than_a_topic_may_have_make_groups() -> None:
    plan = needs(demand(cameras=20_000), constant(score=0.025), SETTINGS, EVEN)
    assert plan.groups > 1
    assert plan.replicas >= 20_000 / 28
    assert plan.partitions <= MOST_PARTITIONS
    assert plan.replicas_in_a_group * plan.groups == plan.replicas
    assert plan.cameras_in_a_group * plan.groups >= 20_000


def test_bytes_make_brokers_and_disks() -> None:
    times = constant(score=0.001).model_copy(update={"mask_bytes": 0, "event_bytes": 0})
    plan = needs(demand(cameras=100, fps=1, image_bytes=1_000_000), times, SETTINGS, Assumptions())
    assert plan.image_mb_s == 100
    assert plan.broker_in_mb_s * plan.brokers == pytest.approx(300)
    assert plan.broker_out_mb_s * plan.brokers == pytest.approx(300), "two copies, and the replicas"
    assert plan.kafka_disk_tb == pytest.approx(300 * 7 * 86_400 / 1e6)
    assert plan.brokers_because == "disk space"
    assert plan.brokers == np.ceil(plan.kafka_disk_tb / (8 * 0.8))
    brief = needs(demand(image_bytes=1_000_000), times, SETTINGS, Assumptions(retention_days=0.01))
    assert (brief.brokers, brief.brokers_because) == (3, "copies")


def test_large_images_go_through_s3() -> None:
    times = constant(score=0.001)
    inline, claimed = (needs(demand(image_bytes=size), times, SETTINGS, EVEN) for size in (1_000_000, 2_000_000))
    assert inline.s3_requests_s == 0
    assert inline.s3_gb_day < 0.01
    assert claimed.s3_requests_s == 200
    assert claimed.s3_gb_day == pytest.approx(100 * 2e6 * 86_400 / 1e9, rel=1e-3)
    assert claimed.kafka_disk_tb < inline.kafka_disk_tb / 10
    assert claimed.times.mean_s("prepare", 1) == pytest.approx(0.01, rel=0.01), "20 ms in two threads"


def test_images_of_another_size_take_what_was_measured_of_sizes() -> None:
    sizes = tuple(
        SizeCost(side_px=side, image_bytes=size, read_s=read_s, cut_s=0.001)
        for side, size, read_s in ((512, 60_000, 0.002), (1024, 240_000, 0.008))
    )
    times = constant(prepare=0.01, poll=0.001).model_copy(update={"by_size": sizes, "byte_s": 1e-8})
    plan = needs(demand(image_bytes=240_000), times, SETTINGS, EVEN)
    assert plan.times.mean_s("prepare", 2) == pytest.approx(0.08)
    assert plan.times.mean_s("poll", 1) == pytest.approx(0.001 + 180_000 * 1e-8)
    assert plan.cpu_s_per_image == pytest.approx(times.cpu_s_per_image + 0.006)
    assert needs(demand(image_bytes=420_000), times, SETTINGS, EVEN).times.mean_s("prepare", 1) == pytest.approx(0.07)


def test_fits_of_all_products_are_counted() -> None:
    times = constant(score=0.001).model_copy(update={"fit": FitCost(image_s=0.5, step_s=0.2)})
    plan = needs(demand(products=30), times, SETTINGS, Assumptions(fits_per_week=2))
    assert plan.fit_s == pytest.approx(200 * 0.5 + 300 * 0.2)
    assert plan.fit_hours_week == pytest.approx(30 * 2 * 160 / 3600)
    assert needs(demand(), constant(), SETTINGS, EVEN).fit_s is None


def test_what_breaks_first_is_the_nearest_limit() -> None:
    plan = needs(demand(cameras=280), constant(score=0.025), SETTINGS, EVEN)
    found = limits(plan, EVEN)
    assert [one.bears for one in found] == sorted(one.bears for one in found)
    (stage,) = [one for one in found if "stage" in one.what]
    assert stage.bears == pytest.approx(40 / 28)
    (partitions,) = [one for one in found if one.what.startswith("partitions")]
    assert partitions.bears == pytest.approx(4 * 40 / 28), "four times the replicas, all as busy as may be"
    short = limits(plan, EVEN.model_copy(update={"broker_disk_tb": 0.01 + plan.broker_disk_tb}))
    assert short[0].what == "a broker's disk space"


def test_a_gpu_that_nobody_has_measured_is_not_made_up() -> None:
    for kind in PEAK_TFLOP_S:
        with pytest.raises(SettingsError, match=f"no service times of {kind}, for none were measured: give --measured"):
            times_for(kind, None, Assumptions(), assume_peak=False)
    measured = constant(score=0.002).model_copy(update={"kind": "cuda"})
    given = times_for("l4", measured, Assumptions(), assume_peak=False)
    assert (given.kind, given.assumed) == ("l4", "")
    for kind, other in (("l4", constant()), ("cpu", measured)):
        with pytest.raises(SettingsError, match=f"are of {other.kind}, and the plan is for {kind}"):
            times_for(kind, other, Assumptions(), assume_peak=False)


def test_a_gpu_by_its_peak_is_told_as_assumed() -> None:
    times = by_peak("l4", constant(prepare=0.001, score=0.025), Assumptions())
    assert "no l4 was measured" in times.assumed
    assert times.mean_s("score", 16) == pytest.approx(16 * 1.3 / (121e3 * 0.05), rel=1e-3)
    plan = needs(demand(cameras=10_000), times, SETTINGS, EVEN)
    assert plan.busiest == "prepare", "decoding on the processor decides"
    assert plan.gpus == np.ceil(10_000 * 1.3 / (121e3 * 0.05) / 0.8)
    few = needs(demand(cameras=10_000), times, SETTINGS, EVEN.model_copy(update={"replicas_per_gpu": 2}))
    assert few.gpus == np.ceil(plan.replicas / 2), "for each takes some of its memory"


def test_times_between_and_beyond_what_was_measured() -> None:
    times = constant(score=0.01)
    assert times.mean_s("score", 1.5) == pytest.approx(0.015)
    assert times.mean_s("score", 64) == pytest.approx(0.64)
    falling = times.model_copy(update={"stages": {**times.stages, "score": (_timed(1, 0.02), _timed(4, 0.01))}})
    assert falling.mean_s("score", 100) == pytest.approx(0.01), "noise is not carried on below nothing"


def test_the_simulated_replicas_have_the_busiest_among_them() -> None:
    plan = needs(demand(cameras=3_000), constant(score=0.025), SETTINGS, Assumptions())
    some = sample(plan, Assumptions())
    assert some.replicas == 12 < plan.replicas
    assert len(some.on) == 12 * 4
    assert of_replicas(some.on, 12)[0] / 40 == pytest.approx(plan.hottest)


def test_a_line_goes_through_calm_burst_death_and_roll() -> None:
    plan = needs(demand(cameras=60), constant(prepare=0.004, score=0.025, commit=0.002), SETTINGS, EVEN)
    calm, burst, death, roll = all_of_them(plan, SETTINGS, EVEN)
    assert [one.unfinished for one in (calm, burst, death, roll)] == [0] * 4
    assert calm.p99_s < 1 < burst.p99_s
    assert burst.drained_s is not None
    assert burst.drained_s > 1
    assert calm.drained_s is None
    assert death.longest_gap_s > 5 > roll.longest_gap_s > calm.longest_gap_s


def _timed(images: int, seconds: float) -> Timed:
    return Timed(images=images, samples=1, quantiles=(seconds,) * len(POINTS))


def test_service_times_without_a_stage_are_refused() -> None:
    values = constant().model_dump()
    del values["stages"]["cut"]
    with pytest.raises(ValueError, match="no times of 'cut'"):
        ServiceTimes.model_validate(values)
