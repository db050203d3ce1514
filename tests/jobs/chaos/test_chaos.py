"""The plan of a chaos run, and how it is judged; the run itself in tests/end_to_end/test_chaos.py."""

import itertools
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

import jobs.chaos.faults
from jobs.audit.report import TROUBLES, Audit, PartitionCount
from jobs.chaos.camera import CAMERAS, due_s, send_all
from jobs.chaos.faults import Faults, Timeline
from jobs.chaos.plan import INTERVALS_S, Fault, Kind, plan
from jobs.chaos.run import ChaosRun, figures
from jobs.chaos.samples import Sample, draw, longest_standstill_s, memory, most_behind
from jobs.cli import main
from pipeline.settings import Settings


def test_a_seed_decides_what_is_done_and_when() -> None:
    first, again, other = (list(itertools.islice(plan(seed, INTERVALS_S), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [fault.at_s for fault in first] == sorted(fault.at_s for fault in first)
    until_s = first[-1].at_s
    for kind, count in Counter(fault.kind for fault in first).items():
        assert count == pytest.approx(until_s / INTERVALS_S[kind], abs=1.3)
    assert all(0 <= fault.pick < 1 for fault in first)


def test_a_kind_that_is_left_out_moves_no_other() -> None:
    without = {**INTERVALS_S, "replica": 0.0}
    kept = list(itertools.islice(plan(0, without), 20))
    assert not [fault for fault in kept if fault.kind == "replica"]
    assert kept == [fault for fault in itertools.islice(plan(0, INTERVALS_S), 300) if fault.kind != "replica"][:20]


def audit(**troubles: int) -> Audit:
    partition = PartitionCount(0, 0, 100, 100, 99, 1, 0, 0, 0)
    return Audit(
        topic="linewatch.images", group="linewatch", since=None, until=None, exactly_once=True, partitions=[partition],
        verdicts={"OK": 99}, deadletters={"UnreadableImage": 1}, masks=99, heat_maps=0,
        troubles={**dict.fromkeys(TROUBLES, 0), **troubles}, examples={}, longest_gap_s={"/a": 1.0, "/b": 7.126},
        notes=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "right"),
    [
        (audit(), True),
        (audit(lost=1), False),
        (audit(doubled_same_id=1), False),
        (audit(doubled_other=2), False),
        (audit(masks_missing=1), False),
        (replace(audit(doubled_same_id=1), exactly_once=False), True),
        (replace(audit(), partitions=[PartitionCount(0, 0, 100, 100, 90, 1, 9, 0, 0)]), False),
        (replace(audit(), partitions=[PartitionCount(0, 0, 90, 90, 89, 1, 0, 0, 0)]), False),
    ],
)
def test_a_run_is_right_where_all_images_are_there_with_one_outcome_each(
    tmp_path: Path, found: Audit, right: bool
) -> None:
    timeline = Timeline(tmp_path / "timeline.jsonl", lambda _: None)
    timeline.counts["replica"] += 3
    timeline.note("replica", "kill -9 of replica 7")
    told = figures(ChaosRun(100), found, timeline, [], 12.34, "servers")
    assert told["right"] is right
    assert told["kills"] == {"replica": 3, "stopped": 0, "broker": 0, "store": 0, "node": 0, "cut": 0, "split": 0}
    assert told["longest_gap_s"] == 7.13
    json.dumps(told)
    (line,) = (tmp_path / "timeline.jsonl").read_text().splitlines()
    assert json.loads(line)["what"] == "kill -9 of replica 7"


def test_memory_is_that_of_a_replica_that_ran_all_the_time() -> None:
    samples = [
        Sample(n, 200 * n, 200 * n, {7: 500.0 if n < 60 else 530.0, 8: 900.0} if n < 90 else {7: 530.0})
        for n in range(100)
    ]
    assert memory(samples) == {"warm_mib": 500.0, "end_mib": 530.0, "growth": 0.06}
    assert memory(samples[:55]) is None, "too early to tell"
    assert memory([*samples[:95], Sample(95, 19_900, 19_900, {9: 1.0})]) is None, "it died"
    assert memory([]) is None


def test_a_standstill_is_when_images_wait_and_none_is_committed() -> None:
    moving = [Sample(float(n), 10 * n, 9 * n, {}) for n in range(1, 10)]
    still = [Sample(9.0 + n, 100, 81, {}) for n in range(1, 6)]  # the offsets may be told lower meanwhile
    after = [Sample(15.0, 100, 40, {}), Sample(16.0, 100, 100, {}), Sample(60.0, 100, 100, {})]
    assert longest_standstill_s([*moving, *still, *after[:2]]) == 7.0
    assert longest_standstill_s([*moving, *still]) == 5.0, "to the end"
    assert longest_standstill_s([Sample(float(n), 100, 100, {}) for n in range(60)]) == 1.0, "nothing to do"
    assert longest_standstill_s([]) == 0.0
    assert most_behind([*moving, *still, *after]) == 60
    assert most_behind([]) == 0


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["sleep", "100"]) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def of_replicas(timeline: Timeline, session_timeout_s: float) -> Faults:
    """For faults that touch no server, node or cable."""
    nothing: Any = None
    return Faults(nothing, nothing, nothing, None, timeline, session_timeout_s)


@pytest.mark.parametrize("kind", ["replica", "stopped"])
@pytest.mark.parametrize("pick", [0.0, 0.5, 0.99])
def test_a_fault_takes_one_that_lives_of_those_that_serve_calls_running(
    kind: Kind,
    pick: float,
    sleepers: list["subprocess.Popen[bytes]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., None],
) -> None:
    """Where the dead one was picked, the fault was left out, and a run said that it had survived it."""
    gone, zombie, living = sleepers
    gone.kill()
    gone.wait()
    zombie.kill()
    waited = [[], [{"pid": one.pid, "state": "RUNNING"} for one in sleepers]]
    monkeypatch.setattr(jobs.chaos.faults, "replicas", lambda _: waited.pop(0) if len(waited) > 1 else waited[0])
    timeline = Timeline(tmp_path / "timeline.jsonl", lambda _: None)
    faults = of_replicas(timeline, session_timeout_s=-1.5)
    faults.run([[Fault(0.0, kind, pick)]], time.monotonic())
    eventually(lambda: timeline.counts[kind])
    faults.end()
    assert str(living.pid) in (tmp_path / "timeline.jsonl").read_text()
    assert (living.wait(10) == -9) if kind == "replica" else living.poll() is None


def test_a_fault_that_found_nobody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    def broken(_: object) -> list[object]:
        raise OSError("no controller")

    for found, why in ((lambda _: [], "no replica runs"), (broken, "OSError: no controller")):
        monkeypatch.setattr(jobs.chaos.faults, "replicas", found)
        monkeypatch.setattr(jobs.chaos.faults, "VICTIM_S", 0.1)
        timeline = Timeline(tmp_path / "timeline.jsonl", lambda _: None)
        of_replicas(timeline, session_timeout_s=6.0).run([[Fault(0.0, "stopped", 0.0)]], time.monotonic())
        eventually(lambda why=why: why in timeline_text(tmp_path))
        assert timeline.counts["stopped"] == 0


def timeline_text(folder: Path) -> str:
    path = folder / "timeline.jsonl"
    return path.read_text() if path.exists() else ""


def test_the_figures_become_a_picture(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "timeline.jsonl", lambda _: None)
    timeline.note("replica", "kill -9 of replica 7")
    samples = [Sample(float(n), 30 * n, 28 * n, {7: 500.0}) for n in range(60)]
    draw(samples, tmp_path / "timeline.jsonl", tmp_path / "chaos.png", "60 samples")
    with Image.open(tmp_path / "chaos.png") as picture:
        assert picture.size > (800, 600)
    draw([], tmp_path / "none", tmp_path / "empty.png", "nothing")


def test_a_burst_is_the_middle_half_of_the_images() -> None:
    at = [due_s(number, 400, 10, 10) for number in (0, 100, 200, 300, 400)]
    assert at == pytest.approx([0, 10, 11, 12, 22])
    assert due_s(400, 400, 10, 1) == pytest.approx(40)


class Producer:
    """Takes messages, and fails where it is told to."""

    failing = 0
    taken: list[str] = []  # noqa: RUF012

    def send(self, _topic: str, _value: bytes, key: bytes, headers: list[tuple[str, bytes]]) -> "Producer":
        self.taken.append(dict(headers)["ce_id"].decode() + key.decode())
        return self

    def flush(self, timeout: float) -> None:
        pass

    def get(self, timeout: float) -> None:  # noqa: ARG002
        if Producer.failing:
            Producer.failing -= 1
            raise OSError("the broker is away")

    def close(self, timeout: float) -> None:
        pass


def test_cameras_send_what_was_not_acknowledged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Producer.failing, Producer.taken = 2, []
    monkeypatch.setattr("jobs.chaos.camera.make_producer", lambda *_, **__: Producer())
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    said: list[int] = []
    assert send_all(Settings.from_values({}), [image], 200, 1e6, 1.0, said.append) == 200
    assert len(set(Producer.taken)) == 200
    assert len(Producer.taken) > 200
    assert len({one.partition("/")[2] for one in Producer.taken}) == CAMERAS
    assert said[-1] == 200


@pytest.mark.parametrize("every", ["replica", "replica=soon", "cable=3"])
def test_faults_that_are_none_are_refused(every: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["chaos", "--every", every, "--folder", str(tmp_path / "new")])
    assert done.exit_code == 2
    assert "write KIND=SECONDS with one of replica, stopped, broker, store, node" in done.output


def test_a_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["chaos", "--folder", str(tmp_path)])
    assert done.exit_code == 2
    assert "is there already" in done.output
