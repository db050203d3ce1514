"""What is measured is what is told: interleaved, on the same images, with the smallest ratio of several batches."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from jobs.bench import engine as bench_engine_module
from jobs.bench import peer_environment
from jobs.bench.peer_environment import REQUIREMENTS, make_peer, peer_folder, peer_python
from jobs.bench.photographs import NoPhotographs, read_photographs
from jobs.cli import main
from model import FitOptions, Frame, read_frame
from model.bench import peer as peer_module
from model.bench import runs
from model.bench import subject as subjects
from model.bench.__main__ import main as model_bench
from model.bench.engine import EngineOptions, OfBatch, our_modes
from model.bench.interleaved import Rates, Run, interleaved, ratio
from model.bench.peer import AnomalibPeer, PeerError
from model.bench.random_teacher import random_teacher
from model.bench.runs import EngineRun, TrainRun, run_engine, run_train
from model.bench.subject import drawn_photographs, prepare
from model.fitting.steps import batch_indexes
from model.teachers import TEACHERS, load_teacher

SIZE = 64
QUICK = EngineOptions(threads=1, repeats=2, seconds=0.001, products=3)


class FakePeer:
    """Takes a fixed time for an image, and remembers what it was asked."""

    def __init__(self, seconds_an_image: float = 0.5) -> None:
        self.seconds = seconds_an_image
        self.rows: list[list[int]] = []
        self.frames: Sequence[Frame] = ()

    def load(self, backbone: str, frames: Sequence[Frame], weights: Path | None, threads: int) -> None:
        self.backbone, self.frames, self.weights, self.threads = backbone, frames, weights, threads

    def modes(self, batches: Sequence[int], on_progress: Callable[[str, int, int], None]) -> Mapping[str, OfBatch]:
        on_progress("exporting", len(batches), len(batches))

        def of_batch(batch: int) -> Run:
            return lambda count: count * batch * self.seconds * (1 if batch == 1 else 2)

        return {"peer_torch": of_batch, "peer_openvino_int8": of_batch}

    def begin_training(self) -> None:
        self.rows.clear()

    def step(self, rows: Sequence[int]) -> tuple[float, float]:
        self.rows.append(list(rows))
        return 10.0, 0.25

    def describe(self) -> dict[str, object]:
        return {"name": "fake"}


def test_modes_take_turns_and_every_second_round_goes_backwards() -> None:
    turns: list[tuple[str, int]] = []

    def mode(name: str, seconds: float) -> Run:
        def run(batches: int) -> float:
            turns.append((name, batches))
            return batches * seconds

        return run

    rates = interleaved({"slow": mode("slow", 2.0), "fast": mode("fast", 0.1)}, 4, repeats=3, seconds=1.0)
    # Two single batches first: to warm up, and to see how many fit into a repeat. A slow one still runs once.
    assert turns[:4] == [("slow", 1), ("slow", 1), ("fast", 1), ("fast", 1)]
    assert turns[4:] == [("slow", 1), ("fast", 10), ("fast", 10), ("slow", 1), ("slow", 1), ("fast", 10)]
    assert rates["slow"].median == pytest.approx(2.0)
    assert rates["fast"].repeats == pytest.approx((40.0, 40.0, 40.0))


def test_a_ratio_is_taken_between_neighbours_in_time() -> None:
    """The machine became three times slower halfway; the medians alone would say 1.5."""
    ours, theirs = Rates((20.0, 20.0, 6.6, 6.6, 6.6)), Rates((10.0, 10.0, 10.0 / 3, 10.0 / 3, 10.0 / 3))
    assert ratio(ours, theirs) == pytest.approx(2.0, rel=0.02)


def test_a_random_teacher_is_the_same_every_time_and_leaves_no_trace(tmp_path: Path) -> None:
    images = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    entry, seen = TEACHERS["resnet18"], []
    for _ in range(2):
        with random_teacher("resnet18", tmp_path) as weights:
            assert weights
            teacher = load_teacher("resnet18")
            seen.append(teacher(images))
            assert teacher.weights_sha256.startswith(weights.stem.rpartition("-")[2])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    assert all(0.05 < float(level.std()) < 50 for level in seen[0])  # neither dead nor exploding
    assert TEACHERS["resnet18"] is entry
    assert "LINEWATCH_WEIGHTS_DIR" not in os.environ
    with random_teacher("efficientnet_lite0", tmp_path) as weights:
        assert weights is None


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converting a student for OpenVINO takes seconds: torch stands for all modes."""
    monkeypatch.setattr(runs, "FIT_STEPS", 2)
    monkeypatch.setattr(runs, "our_modes", lambda subject, options: our_modes(subject, options)[:1])
    monkeypatch.setattr(subjects, "can_quantise", lambda _: False)


def test_every_backend_of_this_machine_is_measured() -> None:
    if not importlib.util.find_spec("openvino"):
        pytest.skip("the package openvino is not installed")
    subject = prepare("efficientnet_lite0", SIZE, drawn_photographs(8, 96, defective_every=8), steps=2)
    modes = our_modes(subject, QUICK)
    names = ["ours_torch", "ours_openvino", "ours_openvino_int8"]
    assert [mode.name for mode in modes] == names[: 3 if importlib.util.find_spec("nncf") else 2]
    for mode in modes:
        results = mode.engine(batch=4, threads=1).score(subject.frames, ["any"] * 8)
        assert sum(result.verdict != "OK" for result in results) == 1, mode.name


@pytest.mark.usefixtures("little_work")
def test_the_engine_report_has_every_rate_and_the_smallest_ratio() -> None:
    peer = FakePeer()
    said: list[tuple[str, int, int]] = []
    photographs = drawn_photographs(8, 96, defective_every=8)
    run = EngineRun("efficientnet_lite0", SIZE, (1, 2), photographs, QUICK)
    report = run_engine(run, peer, lambda *at: said.append(at))
    assert [frame.pixels.tolist() for frame in peer.frames] == [
        read_frame(data, SIZE).pixels.tolist() for data in photographs
    ]
    assert peer.threads == report["threads"] == 1
    ratios = {}
    for batch, slower in (("1", 1), ("2", 2)):
        one = report["batches"][batch]
        rates = one["images_per_s"]
        assert {"ours_torch", "peer_torch", "peer_openvino_int8", "map_to_image_size"} <= set(rates)
        assert all(len(mode["repeats"]) == QUICK.repeats for mode in rates.values())
        assert rates["peer_torch"]["median"] == pytest.approx(1 / (0.5 * slower))
        assert one["best_mode"] == max(
            (name for name in rates if name.startswith("ours")), key=lambda n: rates[n]["median"]
        )
        ratios[batch] = one["ratio_to_peer_openvino_int8"]
        assert one["ratio_to_peer_torch_map_at_image_size"] < one["ratio_to_peer_torch"]
    assert report["ratio_to_peer_openvino_int8"] == min(ratios.values())
    assert "ratio_to_peer_openvino_fp32" not in report  # the fake has none
    assert report["teacher_weights"] == "published"
    assert report["gflop_per_image"] > 0.01
    assert report["bytes_to_mask"]["images_flagged"] == pytest.approx(1 / 8)
    assert report["bytes_to_mask"]["jpeg_side_px"] == 96
    hundred = report["hundred_products"]
    assert hundred["students_bytes"] > 0
    assert report["ratio_hundred_products"] == hundred["ratio_hundred_products"] > 0
    assert report["ratio_bytes_to_mask"] > 0
    assert ("a hundred products", 4, 4) in said
    assert (report["peak_tflop_per_s"] is None) == (report["batches"]["2"]["best_mode"] == "ours_openvino_int8")
    assert report["share_of_peak"] is None or 0 < report["share_of_peak"] < 1
    json.dumps(report)


def test_the_peer_takes_a_step_after_each_of_ours_on_the_same_images() -> None:
    peer = FakePeer()
    fit = FitOptions(size=SIZE, steps=3, batch=4, corruptions=0, method="plain")
    report = run_train(TrainRun(fit, images=8), peer)
    assert peer.rows == [batch_indexes(fit, 8, step) for step in range(3)]
    ours, theirs = report["ours"], report["peer"]
    assert report["epochs"] == 1.5
    assert len(ours["losses"]) == 3
    assert ours["seconds_features"] > 0  # the pass of the teacher is on the clock
    assert ours["seconds_total"] < 30  # what the peer says it took is not
    assert theirs["seconds_total"] == 30.0
    assert theirs["final_loss"] == 0.25
    assert report["ratio_to_peer"] == pytest.approx(30 / ours["seconds_total"], rel=1e-2)


def test_the_detector_measures_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    quick = ["--threads", "1", "--size", str(SIZE), "--device", "cpu"]
    model_bench(["train", *quick, "--steps", "1", "--images", "8", "--batch", "4", "--json", str(file)])
    report = json.loads(file.read_text())
    assert report["command"].startswith("python -m model.bench train --threads 1")
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["versions"]["torch"]
    assert "peer" not in report


def test_photographs_come_from_a_folder_without_its_masks(tmp_path: Path) -> None:
    for name in ("train/good/b.jpg", "train/good/a.jpg", "ground_truth/crack/a_mask.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    assert read_photographs(tmp_path, 5) == [b"train/good/a.jpg", b"train/good/b.jpg"]
    assert read_photographs(tmp_path, 1) == [b"train/good/a.jpg"]
    with pytest.raises(NoPhotographs, match="holds no image"):
        read_photographs(tmp_path / "ground_truth", 5)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "linewatch"


@pytest.mark.usefixtures("empty_cache")
def test_a_peer_that_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peer_python() is None

    def refuse(command: list[str], stdout: object, **_: object) -> subprocess.CompletedProcess[bytes]:
        stdout.write(b"ERROR: No matching distribution found for anomalib\ngood-bye\n")  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(peer_environment.subprocess, "run", refuse)
    with pytest.raises(PeerError, match=r"No matching distribution found for anomalib .*run without --peer"):
        make_peer(lambda _: None)
    assert peer_python() is None
    monkeypatch.setattr(peer_environment, "NEEDED_BYTES", 1 << 60)
    result = CliRunner().invoke(main, ["bench", "engine", "--peer", "anomalib"])
    assert result.exit_code == 1
    assert result.output.strip().splitlines()[-1].startswith("Error: anomalib's environment takes about")
    assert "XDG_CACHE_HOME" in result.output


def test_a_finished_environment_is_used_and_one_of_other_versions_is_not(empty_cache: Path) -> None:
    python = peer_folder() / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (peer_folder() / "made-of.txt").write_text("\n".join(REQUIREMENTS))
    assert peer_folder().parent == empty_cache
    assert make_peer(lambda _: None) == python
    (peer_folder() / "made-of.txt").write_text("anomalib==2.6.0")
    assert peer_python() is None


def test_a_peer_process_that_fails_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [read_frame(data, SIZE) for data in drawn_photographs(2, SIZE)]
    # The driver itself, in an environment without anomalib: ours.
    with AnomalibPeer(Path(sys.executable)) as peer, pytest.raises(PeerError, match=r"failed to load: .*anomalib"):
        peer.load("resnet18", frames, None, 1)
    broken = tmp_path / "driver.py"
    broken.write_text("import sys\nsys.stdin.readline()\nsys.exit('out of luck')\n")
    monkeypatch.setattr(peer_module, "DRIVER", broken)
    with AnomalibPeer(Path(sys.executable)) as peer, pytest.raises(PeerError, match=r"status 1: out of luck"):
        peer.load("resnet18", frames, None, 1)


def test_wrong_wishes_are_one_line() -> None:
    def told(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["bench", *arguments])
        assert result.exit_code != 0
        assert "Traceback" not in result.output
        return result.output.strip().splitlines()[-1]

    assert "no decoder for efficientnet_lite0" in told("train", "--peer", "anomalib")
    assert "no teacher 'vgg16'" in told("engine", "--backbone", "vgg16")
    assert "nowhere holds no image" in told("engine", "--photos", "nowhere")


def test_the_engine_command_writes_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"median": 12.0, "repeats": [12.0]}
    report = {
        "backbone": "resnet18", "size": 256, "threads": 1, "ratio_to_peer_torch": 2.5,
        "peer": {"openvino_int8": {"failed": "no such luck"}},
        "batches": {"16": {"images_per_s": {"ours_torch": rates}}},
    }  # fmt: skip
    monkeypatch.setattr(bench_engine_module, "run_engine", lambda *_: report)
    result = CliRunner().invoke(main, ["bench", "engine", "--batch", "16", "--json", "engine.json"])
    assert result.exit_code == 0, result.output
    assert json.loads(Path("engine.json").read_text())["ratio_to_peer_torch"] == 2.5
    for shown in ("batch 16", "12.0", "ratio_to_peer_torch: 2.50", "peer_openvino_int8 is missing: no such luck"):
        assert shown in result.output


@pytest.fixture
def anomalib() -> Iterator[AnomalibPeer]:
    python = peer_python()
    if python is None:
        pytest.skip("anomalib's environment is not here: 'linewatch bench engine --peer anomalib' makes it")
    with AnomalibPeer(python) as peer:
        yield peer


def test_anomalib_itself_scores_and_learns(anomalib: AnomalibPeer, tmp_path: Path) -> None:
    frames = [read_frame(data, SIZE) for data in drawn_photographs(4, SIZE)]
    with random_teacher("resnet18", tmp_path) as weights:
        anomalib.load("resnet18", frames, weights, 1)
    told = anomalib.describe()
    assert (told["model"], told["threads"]) == ("ReverseDistillation", 1)
    answer = anomalib._ask("score", mode="torch", batch=2, batches=1)
    assert answer["map"] == [2, 1, SIZE, SIZE]
    anomalib.begin_training()
    losses = [anomalib.step([0, 1, 2, 3])[1] for _ in range(4)]
    assert losses[-1] < losses[0]
    with pytest.raises(PeerError, match="failed to score"):
        anomalib._ask("score", mode="openvino_int8", batch=1, batches=1)
