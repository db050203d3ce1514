from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model import BundleError, Engine, Fit, FitOptions, Frame, ModelBundle, read_frame
from model.engine.choice import make_backend
from model.engine.openvino_backend import Graph, OpenVINOBackend
from model.engine.openvino_graphs import given, student_graph
from model.engine.serving_form import serving_form
from model.engine.torch_backend import TorchBackend
from model.network.student import Student
from model.teachers import teacher_spec
from model.teachers.efficientnet_lite import LITE0
from model.verdict.scored import Scored

pytest.importorskip("openvino", reason="the package openvino is not installed")

SAME = 1e-4
"""How far a normalised score may lie from the reference's."""


@pytest.fixture(scope="module")
def backend() -> OpenVINOBackend:
    return OpenVINOBackend(threads=2)


@pytest.fixture(scope="module")
def engine(backend: OpenVINOBackend, bundle: ModelBundle, other_bundle: ModelBundle) -> Engine:
    return Engine(lambda key: bundle if key.startswith("a") else other_bundle, backend=backend, batch_size=8)


@pytest.fixture(scope="module")
def reference(bundle: ModelBundle, other_bundle: ModelBundle) -> Engine:
    return Engine(lambda key: bundle if key.startswith("a") else other_bundle, backend="torch", device="cpu")


def test_a_mixed_batch_scores_as_the_reference_does(
    engine: Engine, reference: Engine, good_frames: list[Frame]
) -> None:
    keys = ["ab"[index * 7 % 3 % 2] for index in range(11)]
    for ours, theirs in zip(engine.score(good_frames[:11], keys), reference.score(good_frames[:11], keys), strict=True):
        assert abs(ours.normalised_score - theirs.normalised_score) < SAME
        assert np.abs(ours.anomaly_map - theirs.anomaly_map).max() < SAME
        assert ours.verdict == theirs.verdict


def test_an_image_scores_alone_as_in_a_batch(engine: Engine, good_frames: list[Frame]) -> None:
    together = engine.score(good_frames[:5], ["a"] * 5)
    for frame, expected in zip(good_frames, together, strict=False):
        (alone,) = engine.score([frame], ["a"])
        assert alone.score == pytest.approx(expected.score, rel=1e-5)


def test_students_of_one_architecture_share_a_graph_and_keep_their_own_weights(
    backend: OpenVINOBackend, bundle: ModelBundle
) -> None:
    import model.engine.openvino_graphs as module

    student = serving_form(bundle.student())
    student_graph(student, "efficientnet_lite0")
    converted = len(module._graphs)
    spoiled = serving_form(bundle.student())
    spoiled.get_buffer("divisor_2").mul_(2)
    graph = Graph(backend._core, student_graph(spoiled, "efficientnet_lite0"), threads=1, streams=1)
    assert len(module._graphs) == converted
    shapes = zip(LITE0.all_widths, LITE0.all_strides, strict=True)
    levels = [torch.randn(1, width, 64 // stride, 64 // stride) for width, stride in shapes]
    inputs = [level.permute(0, 2, 3, 1).contiguous().numpy() for level in levels]
    (maps,) = graph([*inputs, *given(spoiled)])
    with pytest.raises(ValueError, match=f"{len(inputs)} inputs to a graph of {len(inputs) + 2}"):
        graph(inputs)
    with torch.inference_mode():
        assert np.allclose(maps, spoiled.anomaly_maps(levels).numpy(), rtol=1e-4)
        assert not np.allclose(maps, student.anomaly_maps(levels).numpy(), rtol=1e-2)


@pytest.mark.parametrize("backbone", ["resnet18"])
def test_the_published_recipe_has_a_graph_too(backbone: str) -> None:
    torch.manual_seed(0)
    spec = teacher_spec(backbone)
    student = serving_form(Student(spec, size=64).eval())
    from model.engine.openvino_graphs import runtime

    graph = Graph(runtime().Core(), student_graph(student, backbone), threads=1, streams=1)
    levels = [
        torch.randn(1, width, 64 // stride, 64 // stride)
        for width, stride in zip(spec.all_widths, spec.all_strides, strict=True)
    ]
    (maps,) = graph([level.permute(0, 2, 3, 1).contiguous().numpy() for level in levels])
    with torch.inference_mode():
        expected = student.anomaly_maps(levels).numpy()
    assert np.abs(maps - expected).max() < SAME * expected.max()


def test_a_model_of_other_teacher_weights_is_refused(backend: OpenVINOBackend, bundle: ModelBundle) -> None:
    backbone = bundle.manifest.backbone.model_copy(update={"weights_sha256": "0" * 64})
    foreign = ModelBundle(bundle.manifest.model_copy(update={"backbone": backbone}), bundle.weights)
    with pytest.raises(BundleError, match="install the same weights"):
        backend.load(foreign)


def test_which_backend_is_taken() -> None:
    assert isinstance(make_backend("auto", "cpu"), OpenVINOBackend)
    assert isinstance(make_backend("torch", "cpu"), TorchBackend)
    with pytest.raises(ValueError, match="computes on the cpu"):
        make_backend("openvino", "cuda")
    with pytest.raises(ValueError, match="choose auto, torch or openvino"):
        make_backend("tensorrt")  # type: ignore[arg-type]


def test_without_the_package_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.engine.openvino_graphs.installed", lambda: False)
    assert isinstance(make_backend("auto", "cpu"), TorchBackend)
    with pytest.raises(ValueError, match="needs the package openvino"):
        make_backend("openvino")


PROGRAM = """
import json, os, sys
from pathlib import Path
sys.modules.pop("openvino", None)
import torch
torch.set_num_threads(1)
import numpy as np
from model import Engine, Frame, ModelBundle
folder = Path(sys.argv[1])
bundle = ModelBundle.open((folder / "manifest.json").read_bytes(), (folder / "weights").read_bytes())
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
engine = Engine(lambda key: bundle, backend="openvino", device="cpu", threads=2)
frame = Frame(np.zeros((64, 64, 3), np.uint8), 64, 64)
engine.score([frame] * 2, ["a", "b"])
before, claimed = resident(), engine.memory_bytes
keys = [f"product{number}" for number in range(8)]
engine.score([frame] * 8, keys)
grown, claimed = resident() - before, engine.memory_bytes - claimed
for key in keys:
    engine.forget(key)
engine.score([frame] * 8, keys)
again = resident() - before
import openvino.tools.ovc.telemetry_utils as telemetry
print(json.dumps({"grown": grown, "claimed": claimed, "again": again, "telemetry": telemetry.tm.__name__}))
"""


def test_products_take_the_memory_they_claim_and_give_it_back_and_nothing_is_reported(
    tmp_path: Path, bundle: ModelBundle
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("resident memory is read from /proc")
    (tmp_path / "manifest.json").write_bytes(bundle.manifest_json())
    (tmp_path / "weights").write_bytes(bundle.weights)
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True)
    seen = SimpleNamespace(**json.loads(ran.stdout.splitlines()[-1]))
    assert 0.6 * seen.claimed < seen.grown < 1.4 * seen.claimed
    assert seen.again < 1.3 * seen.grown
    assert seen.telemetry == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.data
def test_scores_of_photographs_are_those_of_the_reference(photographs: Path, backend: OpenVINOBackend) -> None:
    good = [read_frame(path.read_bytes(), 256) for path in sorted((photographs / "bottle/train/good").iterdir())[:14]]
    cracked = sorted((photographs / "bottle/test/broken_large").iterdir())[:3]
    frames = good[:3] + [read_frame(path.read_bytes(), 256) for path in cracked]
    bundle = Fit("bottle", good[:8], good[8:], FitOptions(steps=3, batch=8)).run()
    ours = Engine(lambda _: bundle, backend=backend).score(frames, ["bottle"] * 6)
    theirs = Engine(lambda _: bundle, backend="torch", device="cpu").score(frames, ["bottle"] * 6)
    for one, other in zip(ours, theirs, strict=True):
        assert abs(one.normalised_score - other.normalised_score) < SAME
        assert np.abs(one.anomaly_map - other.anomaly_map).max() < SAME


def test_float16_moves_scores_by_little(bundle: ModelBundle, good_frames: list[Frame]) -> None:
    seen = good_frames[16:]  # of images that a fit has seen, 16 of them, statistics know every bit
    exact = Engine(lambda _: bundle, backend="torch", device="cpu").score(seen, ["a"] * len(seen))
    rounding = TorchBackend("cpu", torch.float16)
    rounded = Engine(lambda _: bundle, backend=rounding).score(seen, ["a"] * len(seen))
    assert [one.score for one in rounded] != [one.score for one in exact]
    for one, other in zip(rounded, exact, strict=True):
        assert one.anomaly_map.dtype == np.float32
        assert one.normalised_score == pytest.approx(other.normalised_score, rel=0.03)
    coarse = Engine(lambda _: bundle, backend=TorchBackend("cpu", torch.bfloat16)).score(seen, ["a"] * len(seen))

    def shift(results: list[Scored]) -> float:
        pairs = zip(results, exact, strict=True)
        return max(abs(one.normalised_score / other.normalised_score - 1) for one, other in pairs)

    assert shift(coarse) > 3 * shift(rounded)  # why GPUs do not score in bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
def test_a_gpu_scores_as_the_cpu_does(bundle: ModelBundle, good_frames: list[Frame]) -> None:
    on_cpu = Engine(lambda _: bundle, backend="torch", device="cpu").score(good_frames, ["a"] * len(good_frames))
    for backend, tolerance in (("torch", 1e-3), ("auto", 0.03)):
        engine = Engine(lambda _: bundle, backend=backend, device="cuda")  # type: ignore[arg-type]
        for one, other in zip(engine.score(good_frames, ["a"] * len(good_frames)), on_cpu, strict=True):
            assert one.normalised_score == pytest.approx(other.normalised_score, rel=tolerance)
