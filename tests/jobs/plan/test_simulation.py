"""The simulated line, where theory or the worker's own rules have the answer."""

import itertools

import numpy as np
import pytest
from kafka.partitioner import DefaultPartitioner

from jobs.plan.arrivals import camera_names, even_cameras, key_hash, steady, with_burst
from jobs.plan.simulation import Fault, Line, Outcome, longest_gap_s, most_behind, simulate
from pipeline.settings import Stream
from tests.jobs.plan.constant import constant

ONE_BY_ONE = Stream(batch_images=1, transaction_images=1)


def line(replicas: int = 1, stream: Stream = ONE_BY_ONE) -> Line:
    return Line(replicas, stream, 60_000, rebalance_s=0.5)


def poisson(per_s: float, images: int, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / per_s, images))


def waits(outcome: Outcome) -> np.ndarray:
    return outcome.finished_s - outcome.captured_s


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.8])
def test_one_stage_of_constant_time_waits_as_md1_says(load: float) -> None:
    # Much longer than the worker's poll of 10 ms while a batch is in flight, which theory knows nothing of.
    service_s = 1.0
    outcome = simulate(constant(score=service_s), line(), [poisson(load / service_s, 20_000)])
    waited_s = waits(outcome).mean() - service_s
    assert waited_s == pytest.approx(service_s * load / (2 * (1 - load)), rel=0.1)
    assert outcome.busy["score"][0] == pytest.approx(load, rel=0.03)


def test_stages_overlap_so_the_slowest_one_decides() -> None:
    times = constant(prepare=0.02, score=0.05, cut=0.03, commit=0.01)
    outcome = simulate(times, line(stream=Stream()), [np.zeros(2_000)])
    assert 2_000 / outcome.finished_s.max() == pytest.approx(1 / 0.05, rel=0.03)


def test_batches_grow_with_the_backlog() -> None:
    """A device that takes as long for 16 images as for one is saturated by single images and bears batches."""
    flat = constant(score=0.05)
    flat = flat.model_copy(update={"stages": {**flat.stages, "score": flat.stages["score"][:1]}})
    images = np.arange(0, 60, 1 / 100)  # 100 images a second, where one by one 20 are too many
    batched = simulate(flat, line(stream=Stream(batch_images=16)), [images])
    assert batched.latency_s(0.99) < 0.5
    assert simulate(flat, line(stream=Stream(batch_images=1)), [images]).latency_s(0.99) > 60


@pytest.mark.parametrize("seed", range(5))
def test_every_image_comes_out_once_whatever_happens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrivals = with_burst([2, 0, 5, 1, 3, 3, 1, 2], 2.0, 60.0, (20.0, 5.0, 4.0), rng)
    faults = [
        Fault(float(rng.uniform(5, 50)), int(rng.integers(3)), "dies", float(rng.uniform(1, 15))),
        Fault(float(rng.uniform(5, 50)), int(rng.integers(3)), "leaves", 3.0),
    ]
    times = constant(prepare=0.005, score=0.03, cut=0.002, commit=0.004)
    # That none is committed twice, and none out of order, the simulation asserts itself at each commit.
    outcome = simulate(times, line(3, Stream()), arrivals, faults, seed=seed)
    assert outcome.unfinished == 0
    assert len(outcome.finished_s) == sum(map(len, arrivals))
    assert (waits(outcome) > 0).all()


def test_a_burst_drains_at_what_is_left_of_the_rate() -> None:
    """20 a second are done; 10 come, 40 for 5 s: 100 more than are done, worked off at 10 a second."""
    burst = with_burst([10], 1.0, 60.0, (10.0, 5.0, 4.0), np.random.default_rng(0))
    outcome = simulate(constant(score=0.05), line(stream=Stream()), burst)
    assert 100 <= outcome.most_behind <= 125, "and what is in flight"
    assert outcome.captured_s[waits(outcome) > 0.5].max() == pytest.approx(15 + 100 / 10, abs=2)


def test_more_replicas_never_make_it_slower() -> None:
    times = constant(prepare=0.004, score=0.03, cut=0.002, commit=0.004)
    arrivals = steady([3] * 16, 1.0, 40.0, np.random.default_rng(0))
    p99_s = [simulate(times, line(replicas, Stream()), arrivals).latency_s(0.99) for replicas in (1, 2, 4, 8, 16)]
    assert p99_s[0] > 5, "one replica is not enough for 48 images a second"
    assert all(after <= before * 1.1 for before, after in itertools.pairwise(p99_s))


def test_partitions_limit_replicas() -> None:
    """A replica without a partition does nothing."""
    arrivals = [np.arange(0, 30, 1 / 30.0), np.arange(0, 30, 1 / 30.0)]
    times = constant(score=0.05)
    two, eight = (simulate(times, line(replicas, Stream()), arrivals) for replicas in (2, 8))
    assert eight.finished_s.max() == pytest.approx(two.finished_s.max(), rel=0.01)
    assert (eight.busy["score"][2:] == 0).all()


@pytest.mark.parametrize("session_s", [6.0, 20.0])
def test_a_death_leaves_its_partitions_alone_for_the_session(session_s: float) -> None:
    arrivals = [np.arange(0, 60, 0.2) for _ in range(4)]
    quiet = Line(2, Stream(), 60_000, session_timeout_s=session_s, rebalance_s=0.5)
    outcome = simulate(constant(score=0.01), quiet, arrivals, [Fault(20.0, 1, "dies")])
    gaps = [longest_gap_s(*_of(outcome, number)) for number in range(4)]
    assert [gaps[1], gaps[3]] == pytest.approx([session_s + 0.5] * 2, abs=2 * quiet.heartbeat_s + 0.5)
    assert max(gaps[0], gaps[2]) < session_s / 4, "those of the living wait for no more than what piled up"
    assert outcome.unfinished == 0


def test_who_leaves_hands_over_without_the_session() -> None:
    arrivals = [np.arange(0, 60, 0.2) for _ in range(4)]
    outcome = simulate(constant(score=0.01), line(2, Stream()), arrivals, [Fault(20.0, 1, "leaves", 5.0)])
    assert 0.4 < outcome.longest_gap_s < 1.2
    assert outcome.unfinished == 0


def test_what_nobody_takes_over_is_told_as_unfinished() -> None:
    outcome = simulate(constant(score=0.01), line(), [np.arange(0, 20, 0.5)], [Fault(10.0, 0, "dies")])
    assert 18 <= outcome.unfinished <= 21
    assert outcome.latency_s(0.99) == np.inf


def test_cameras_meet_the_partition_that_kafkas_client_chooses() -> None:
    for name in camera_names(200):
        chosen = DefaultPartitioner().partition("images", name, name.encode(), None, None, Cluster())
        assert key_hash(name) % 12 == chosen
    assert sorted(key_hash(camera_names(1000)[number]) % 12 for number in even_cameras(12, 2)) == sorted(
        [*range(12)] * 2
    )


class Cluster:
    """What the client knows of a topic with twelve partitions."""

    def topics(self) -> set[str]:
        return {"images"}

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return set(range(12))

    available_partitions_for_topic = partitions_for_topic


def test_behind_and_gaps_of_a_known_row() -> None:
    captured, finished = np.array([0.0, 1.0, 2.0, 10.0]), np.array([0.5, 6.0, 6.0, 10.5])
    assert most_behind(captured, finished) == 2
    assert longest_gap_s(captured, finished) == 5.0
    assert longest_gap_s(np.array([0.0]), np.array([np.nan])) == np.inf


def _of(outcome: Outcome, partition: int) -> tuple[np.ndarray, np.ndarray]:
    mine = outcome.partition == partition
    return outcome.captured_s[mine], outcome.finished_s[mine]
