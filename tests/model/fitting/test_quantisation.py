"""int8 versions: what quantisation changes, and that it travels with the version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from model import BundleError, Engine, Fit, FitError, FitOptions, Frame, ModelBundle
from model.bench.random_teacher import random_teacher
from model.engine import openvino_graphs
from model.engine.openvino_backend import OpenVINOBackend, OpenVINOStudent
from model.fitting.options import MOST_SCORE_SHIFT
from model.fitting.quantisation import quantised, score_shift
from model.manifest import INT8_PREFIX, Quantisation

pytest.importorskip("openvino", reason="the package openvino is not installed")
pytest.importorskip("nncf", reason="the package nncf is not installed")


@pytest.fixture(scope="module")
def int8(bundle: ModelBundle, good_frames: list[Frame]) -> ModelBundle:
    return quantised(bundle, good_frames[:16], good_frames[16:])


@pytest.fixture(scope="module")
def engine(bundle: ModelBundle, int8: ModelBundle) -> Engine:
    return Engine({"fp32": bundle, "int8": int8, "again": int8}.__getitem__, backend="openvino", threads=1)


def test_scores_stay_close_and_are_not_the_same(engine: Engine, good_frames: list[Frame]) -> None:
    count = len(good_frames)
    fp32, int8 = (np.array([one.score for one in engine.score(good_frames, [key] * count)]) for key in ("fp32", "int8"))
    assert score_shift(int8, fp32) < MOST_SCORE_SHIFT
    assert np.abs(fp32 - int8).max() > 0


def test_a_shift_is_told_in_deviations_and_a_common_factor_is_none() -> None:
    scores = np.exp(np.array([-1.0, 0.0, 1.0, 0.0, 2.0]))
    assert score_shift(3 * scores, scores) == pytest.approx(0)
    moved = np.exp(np.log(scores) + np.array([0.4, 0.0, -0.4, 0.4, -0.4]))
    assert score_shift(moved, scores) == pytest.approx(0.4 / np.log(scores).std())
    assert score_shift(scores, np.ones(5)) > 100, "scores that were all the same"


def test_a_manifest_of_before_is_read_and_its_shift_is_not_taken_for_deviations() -> None:
    assert Quantisation.model_validate({"images": 64, "score_shift": 0.03}).score_shift_sd is None


def test_the_convolutions_of_the_student_are_int8_and_the_map_is_not(int8: ModelBundle) -> None:
    student = int8.int8_graphs()["student"][0].decode()
    names = [line.split('name="')[1].split('"')[0] for line in student.splitlines() if 'type="FakeQuantize"' in line]
    assert len(names) > 20
    assert all(any(part in name for part in ("fusion", "embedding", "decoder")) for name in names)


def test_the_threshold_is_placed_by_the_scores_that_serve(
    int8: ModelBundle, engine: Engine, good_frames: list[Frame]
) -> None:
    held_out = good_frames[16:]
    highest = max(one.score for one in engine.score(held_out, ["int8"] * len(held_out)))
    assert highest == pytest.approx(int8.manifest.calibration.heldout_maximum, rel=1e-4)


def test_a_mixed_batch_of_both_precisions_scores_each_as_alone(engine: Engine, good_frames: list[Frame]) -> None:
    keys = ["fp32", "int8", "again"] * 3
    together = engine.score(good_frames[:9], keys)
    for frame, key, expected in zip(good_frames, keys, together, strict=False):
        (alone,) = engine.score([frame], [key])
        assert alone.score == pytest.approx(expected.score, rel=1e-5)


def test_a_lite_teacher_stays_in_float32_and_is_shared_with_all(bundle: ModelBundle, int8: ModelBundle) -> None:
    assert set(int8.int8_graphs()) == {"student"}
    assert int8.manifest.teacher_key == bundle.manifest.teacher_key


def test_a_version_whose_graph_has_all_of_it_as_constants_goes_on_serving(
    bundle: ModelBundle, int8: ModelBundle, engine: Engine, good_frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(openvino_graphs, "_given", lambda _: {})
        before.setattr(openvino_graphs, "_graphs", {})
        old = quantised(bundle, good_frames[:16], good_frames[16:])
    assert len(old.int8_graphs()["student"][1]) > len(int8.int8_graphs()["student"][1])
    served = Engine(lambda _: old, backend="openvino", threads=1)
    scores = [one.score for one in served.score(good_frames[:5], ["old"] * 5)]
    assert scores == pytest.approx([one.score for one in engine.score(good_frames[:5], ["int8"] * 5)], rel=1e-4)


@pytest.fixture(scope="module")
def resnet(good_frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelBundle]:
    """An int8 version of a teacher that is quantised too; its weights are random."""
    with random_teacher("resnet18", tmp_path_factory.mktemp("weights")):
        options = FitOptions(backbone="resnet18", size=64, steps=2, batch=4, corruptions=0, precision="int8")
        yield Fit("cap", good_frames[:16], good_frames[16:], options).run()


def test_versions_with_equal_int8_teachers_share_one_and_let_it_go_with_the_last(resnet: ModelBundle) -> None:
    assert resnet.int8_graphs()["teacher"][0].decode().count('type="FakeQuantize"') > 20
    backend = OpenVINOBackend(threads=1)
    one, other = backend.load(resnet), backend.load(resnet)
    assert isinstance(one, OpenVINOStudent)
    assert isinstance(other, OpenVINOStudent)
    assert one.teacher is other.teacher
    assert len(backend._int8_teachers) == 1
    del one, other
    assert len(backend._int8_teachers) == 0


def test_statistics_are_those_of_what_a_quantised_teacher_sees(int8: ModelBundle, resnet: ModelBundle) -> None:
    """And of a teacher that stays in float32 they stay, too."""
    for version, same in ((int8, True), (resnet, False)):
        learned = [g.get_buffer("directions") for g in version.student().statistics.gaussians]  # type: ignore[union-attr]
        served = version.int8_given()
        assert len(served) == 2
        assert all(np.array_equal(of, own.numpy()) == same for of, own in zip(served, learned, strict=False))


def test_a_stored_version_comes_back(int8: ModelBundle, good_frames: list[Frame]) -> None:
    opened = ModelBundle.open(int8.manifest_json(), int8.weights)
    assert json.loads(int8.manifest_json())["quantisation"]["images"] == 16
    engine = Engine({"a": int8, "b": opened}.__getitem__, backend="openvino")
    one, other = engine.score(good_frames[:2] * 2, ["a", "a", "b", "b"])[::2]
    assert one.score == other.score


def test_the_float32_student_is_still_in_it(bundle: ModelBundle, int8: ModelBundle) -> None:
    before, after = bundle.student().state_dict(), int8.student().state_dict()
    assert set(before) == set(after)
    assert not any(name.startswith(INT8_PREFIX) for name in after)


def test_torch_refuses_an_int8_version_and_says_what_to_do(int8: ModelBundle, good_frames: list[Frame]) -> None:
    engine = Engine(lambda _: int8, backend="torch", device="cpu")
    with pytest.raises(BundleError, match=r"computes in int8.*backend openvino.*precision fp32"):
        engine.score(good_frames[:1], ["a"])


def test_graphs_that_are_not_there_or_not_those_are_refused(bundle: ModelBundle, int8: ModelBundle) -> None:
    bare = replace(bundle, manifest=bundle.manifest.model_copy(update={"quantisation": int8.manifest.quantisation}))
    with pytest.raises(BundleError, match="hold no int8 graphs"):
        OpenVINOBackend().load(bare)


def test_an_int8_teacher_that_is_not_the_manifests_is_refused(resnet: ModelBundle) -> None:
    assert resnet.manifest.quantisation is not None
    other = resnet.manifest.quantisation.model_copy(update={"teacher_sha256": "0" * 64})
    with pytest.raises(BundleError, match="int8 teacher"):
        OpenVINOBackend().load(replace(resnet, manifest=resnet.manifest.model_copy(update={"quantisation": other})))


def test_a_quantised_version_is_not_quantised_again(int8: ModelBundle, good_frames: list[Frame]) -> None:
    with pytest.raises(FitError, match="int8 already"):
        quantised(int8, good_frames[:16], good_frames[16:])


def test_without_nncf_a_fit_in_int8_is_refused_before_it_begins(
    good_frames: list[Frame], small_options: Callable[..., FitOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "nncf" else object())
    with pytest.raises(FitError, match=r"nncf: pip install 'linewatch\[int8\]'"):
        Fit("cap", good_frames[:16], good_frames[16:], small_options(precision="int8"))


def test_a_fit_can_end_in_int8(good_frames: list[Frame]) -> None:
    options = FitOptions(size=64, steps=2, batch=4, corruptions=0, precision="int8")
    phases: list[str] = []
    bundle = Fit("cap", good_frames[:16], good_frames[16:], options).run(lambda report: phases.append(report.phase))
    assert bundle.manifest.quantisation is not None
    assert phases[-1] == "quantisation"
