"""Timing the real worker on a real broker, with a device that takes no processor; and how timings become a file."""

import os
from pathlib import Path

import numpy as np
import pytest

from jobs.plan.arrivals import camera_names, key_hash
from jobs.plan.check import Compared, Ran, _compare, _latency
from jobs.plan.measure import Found, rate_of, regular, timed_of
from jobs.plan.plant import Committed, Plant, read_log
from model.bench.subject import Subject
from pipeline.errors import ServingError
from pipeline.settings import Settings
from tests.conftest import Plant as Servers
from tests.jobs.plan.constant import constant


def test_times_are_kept_by_the_nearest_size() -> None:
    timed = (
        [("score", 1, 0.02)] * 6 + [("score", 15, 0.3), ("score", 16, 0.32)] * 3 + [("score", 31, 9.0), ("cut", 1, 1.0)]
    )
    one, sixteen = timed_of("score", timed)
    assert (one.images, one.samples, set(one.quantiles)) == (1, 6, {0.02})
    assert (sixteen.images, sixteen.samples) == (15.5, 6)
    assert timed_of("cut", timed)[0].samples == 1, "better few than none"
    assert timed_of("poll", timed) == ()


def test_a_backlog_tells_nothing_of_a_fetch() -> None:
    told = {"timed": [], "fetch_s": [0.01] * 20}
    found = Found.nothing()
    found.note(told, backlog=True)
    assert not found.fetch_s
    found.note(told)
    assert found.fetch_s


def test_a_rate_is_of_what_came_after_the_first_commit() -> None:
    assert rate_of([1.0, 1.0, 2.0, 3.0]) == 1.0
    assert rate_of([1.0]) == 0.0


def test_an_error_is_a_share_of_what_was_measured() -> None:
    one = Compared("half", "p50 s", [0.1, 0.2, 0.4], [0.11, 0.2, 0.2], [0.1, 0.1, 0.44])
    assert one.errors(one.ahead) == pytest.approx([0.1, 0.0, -0.5])
    assert one.error_ahead == pytest.approx(0.1)
    assert one.error_alone == pytest.approx(0.1)
    assert one.as_json()["measured"] == [0.1, 0.2, 0.4]


def test_a_run_is_simulated_with_its_own_images() -> None:
    """Images that were really committed 30 ms after their capture, beside a simulation that takes 60."""
    captured = np.arange(0, 20, 0.1)
    committed = Committed(captured + 1e9, captured + 1e9 + 0.03, np.arange(200) % 8)
    found: dict[tuple[str, str], Compared] = {}
    _compare(found, Ran("half", _latency, Settings.from_values({}), committed, None), constant(score=0.06))
    p50 = found["half", "p50 s"]
    assert p50.measured == pytest.approx([0.03], abs=1e-3)
    assert p50.error_ahead == pytest.approx(1.0, abs=0.35), "the worker looks every 10 ms"


@pytest.mark.servers
@pytest.mark.apache
def test_every_image_is_committed_once_and_each_stage_is_timed(
    apache: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = apache.settings(topics={"partitions": 8})
    apache.store(base)
    for name in ("access_key", "secret_key"):
        secret = getattr(base.s3, name)
        monkeypatch.setitem(os.environ, f"LINEWATCH_S3__{name.upper()}", secret.get_secret_value())
    # A simulated device takes any bytes, and has no model.
    plant = Plant(base, Subject(None, None, [b"x" * 1000], []), tmp_path)  # type: ignore[arg-type]
    captures = regular(20.0, 3.0)
    with plant.replica(0, 5.0) as replica:
        backlog, told = plant.backlog(replica, plant.fresh(), 100)
        paced, _ = plant.paced(replica, plant.fresh(), captures)
    assert len(backlog.captured_s) == 100
    assert {stage for stage, _, _ in told["timed"]} >= {"prepare", "score", "cut", "commit"}
    assert all(seconds >= 0.005 * images for stage, images, seconds in told["timed"] if stage == "score")
    assert sum(images for stage, images, _ in told["timed"] if stage == "commit") == 100
    assert told["event_bytes"] > 100
    assert len(paced.captured_s) == len(captures)
    assert (paced.finished_s > paced.captured_s).all()
    names = camera_names(1 + max(camera for _, camera in captures))
    wanted = sorted(key_hash(names[camera]) % 8 for _, camera in captures)
    assert sorted(paced.partition) == wanted, "where Kafka's client has put them"


def test_a_killed_process_leaves_its_commits(tmp_path: Path) -> None:
    log = tmp_path / "commits.jsonl"
    log.write_text('{"at": 10.0, "ages_s": [1.0, 2.0], "partitions": [0, 3]}\n')
    found = read_log([log, tmp_path / "never-written.jsonl"])
    assert found.captured_s.tolist() == [9.0, 8.0]
    assert found.partition.tolist() == [0, 3]
    assert [part.tolist() for part in found.arrivals(4)] == [[1.0], [], [], [0.0]]


def test_too_few_images_are_told_by_what_could_not_be_timed(tmp_path: Path) -> None:
    from jobs.plan.measure import MeasureRun, service_times

    plant = Plant(Settings.from_values({}), Subject(None, None, [b"x"], []), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ServingError, match="too few images to time poll, prepare, score, cut, commit"):
        service_times(plant, MeasureRun(), Found.nothing())
