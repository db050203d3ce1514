from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from model import BundleError, Engine, Frame, ModelBundle
from model.engine.torch_backend import TorchBackend
from model.manifest import Manifest


class Store:
    """Bundles by key; counts what is fetched."""

    def __init__(self, **bundles: ModelBundle) -> None:
        self.bundles = bundles
        self.fetched: list[str] = []

    def __call__(self, key: str) -> ModelBundle:
        self.fetched.append(key)
        if key.rstrip("0123456789") not in self.bundles:
            raise BundleError(f"there is no {key}")
        return self.bundles[key.rstrip("0123456789")]


@pytest.fixture
def store(bundle: ModelBundle, other_bundle: ModelBundle) -> Store:
    return Store(a=bundle, b=other_bundle)


def test_a_mixed_batch_scores_as_each_image_alone(store: Store, good_frames: list[Frame]) -> None:
    engine = Engine(store, device="cpu", backend="torch", batch_size=4)
    keys = [("a", "b")[index * 7 % 3 % 2] for index in range(11)]
    together = engine.score(good_frames[:11], keys)
    for frame, key, result in zip(good_frames, keys, together, strict=False):
        (alone,) = engine.score([frame], [key])
        assert result.score == pytest.approx(alone.score, rel=1e-5)
        assert result.verdict == alone.verdict
        assert np.allclose(result.anomaly_map, alone.anomaly_map, rtol=1e-4, atol=1e-5)


def test_the_score_is_the_maximum_of_the_map(store: Store, good_frames: list[Frame]) -> None:
    for result in Engine(store, device="cpu", backend="torch").score(good_frames[:4], ["a"] * 4):
        assert result.anomaly_map.shape == (16, 16)
        assert result.anomaly_map.dtype == np.float32
        assert float(result.anomaly_map.max()) == pytest.approx(result.normalised_score, rel=1e-6)
        assert result.normalised_score == pytest.approx(result.score / result.threshold)
        assert (result.width, result.height) == (320, 240)


def test_the_engine_agrees_with_the_calibration(store: Store, bundle: ModelBundle, good_frames: list[Frame]) -> None:
    scores = [
        result.score for result in Engine(store, device="cpu", backend="torch").score(good_frames[16:], ["a"] * 8)
    ]
    assert max(scores) == pytest.approx(bundle.manifest.calibration.heldout_maximum, rel=1e-4)


def test_one_teacher_pass_serves_all_products_of_a_chunk(store: Store, good_frames: list[Frame]) -> None:
    passes: list[int] = []

    class Counting(TorchBackend):
        def begin(self, manifest: Manifest, frames: Sequence[Frame], students: Any) -> Any:
            passes.append(len(frames))
            return super().begin(manifest, frames, students)

    engine = Engine(store, backend=Counting("cpu"), batch_size=8)
    engine.score(good_frames[:12], ["a", "b"] * 6)
    assert passes == [8, 4]


def test_least_recently_used_students_make_room_and_come_back(
    store: Store, bundle: ModelBundle, good_frames: list[Frame]
) -> None:
    engine = Engine(store, device="cpu", backend="torch")
    engine.warm("a1")
    one = engine.memory_bytes
    engine = Engine(store, device="cpu", backend="torch", memory_limit_bytes=int(2.5 * one))
    store.fetched.clear()
    engine.warm("a1")
    engine.warm("a2")
    engine.score(good_frames[:1], ["a1"])
    engine.warm("a3")
    assert engine.loaded == ("a1", "a3")
    assert engine.memory_bytes == 2 * one
    engine.score(good_frames[:2], ["a2", "a3"])
    assert store.fetched == ["a1", "a2", "a3", "a2"]
    assert engine.memory_bytes <= 2.5 * one
    assert engine.manifest("a3") == bundle.manifest


def test_one_batch_of_more_products_than_fit_is_still_scored(store: Store, good_frames: list[Frame]) -> None:
    engine = Engine(store, device="cpu", backend="torch", memory_limit_bytes=1)
    assert len(engine.score(good_frames[:3], ["a1", "a2", "a3"])) == 3
    assert engine.loaded == ("a3",)


def test_a_forgotten_model_is_loaded_again(store: Store) -> None:
    engine = Engine(store, device="cpu", backend="torch")
    engine.warm("a")
    engine.forget("a")
    engine.forget("never heard of")
    assert engine.loaded == ()
    engine.warm("a")
    assert store.fetched == ["a", "a"]


def test_what_the_store_raises_reaches_the_caller(store: Store, good_frames: list[Frame]) -> None:
    engine = Engine(store, device="cpu", backend="torch")
    with pytest.raises(BundleError, match="there is no c"):
        engine.warm("c")
    with pytest.raises(BundleError, match="there is no c"):
        engine.score(good_frames[:2], ["a", "c"])
    assert len(engine.score(good_frames[:1], ["a"])) == 1


def test_a_model_of_other_teacher_weights_is_refused(bundle: ModelBundle) -> None:
    backbone = bundle.manifest.backbone.model_copy(update={"weights_sha256": "0" * 64})
    foreign = ModelBundle(bundle.manifest.model_copy(update={"backbone": backbone}), bundle.weights)
    with pytest.raises(BundleError, match="install the same weights"):
        Engine(lambda _: foreign, device="cpu", backend="torch").warm("a")


def test_frames_of_the_wrong_size_are_refused(store: Store, drawn_frame: Callable[..., Frame]) -> None:
    with pytest.raises(ValueError, match="needs read_frame"):
        Engine(store, device="cpu", backend="torch").score([drawn_frame(0, size=128)], ["a"])
    with pytest.raises(ValueError, match="one key per frame"):
        Engine(store, device="cpu", backend="torch").score([drawn_frame(0)], [])


def test_nothing_to_score_gives_nothing(store: Store) -> None:
    assert Engine(store, device="cpu", backend="torch").score([], []) == []


def test_threads_share_an_engine_and_load_each_model_once(store: Store, good_frames: list[Frame]) -> None:
    engine = Engine(store, device="cpu", backend="torch")
    expected = [result.score for result in Engine(store, device="cpu", backend="torch").score(good_frames, ["a"] * 24)]
    store.fetched.clear()
    barrier = threading.Barrier(4)

    def work(offset: int) -> list[float]:
        barrier.wait()
        return [engine.score([good_frames[(i + offset) % 24]], ["a"])[0].score for i in range(6)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(0, 24, 6)))
    assert store.fetched == ["a"]
    assert np.concatenate(results) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("error", [MemoryError, torch.cuda.OutOfMemoryError])
def test_what_does_not_fit_into_memory_is_halved_for_good(
    store: Store, good_frames: list[Frame], error: type[Exception]
) -> None:
    tried: list[int] = []

    class Small(TorchBackend):
        def begin(self, manifest: Manifest, frames: Sequence[Frame], students: Any) -> Any:
            tried.append(len(frames))
            if len(frames) > 3:
                raise error("no room")
            return super().begin(manifest, frames, students)

    engine = Engine(store, backend=Small("cpu"), batch_size=8)
    keys = ["a", "b"] * 6
    scores = [result.score for result in engine.score(good_frames[:12], keys)]
    assert tried == [8, 4, 2, 2, 4, 2, 2, 2, 2]
    expected = Engine(store, device="cpu", backend="torch").score(good_frames[:12], keys)
    assert scores == pytest.approx([result.score for result in expected], rel=1e-5)


def test_one_image_that_does_not_fit_into_memory_is_an_error(store: Store, good_frames: list[Frame]) -> None:
    class Full(TorchBackend):
        def begin(self, *_: Any) -> Any:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        Engine(store, backend=Full("cpu")).score(good_frames[:3], ["a"] * 3)
