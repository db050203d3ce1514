"""The one path of CPUs and GPUs: buffers, buckets, moulds, order and precision, as far as a CPU can show them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from model import Engine, Frame, ModelBundle
from model.engine import torch_backend
from model.engine.device import CPU, Mark, Rehearsal
from model.engine.precision import golden_frames, shift
from model.engine.replays import Bucketed, Mould, bucket, buckets, in_one_block
from model.engine.serving_form import serving_form
from model.engine.staging import BUFFERS, Staging
from model.engine.torch_backend import TorchBackend, in_precision

NO_GPU = "this machine has no CUDA GPU"


class Late(CPU):
    """A device that reads what it is sent only once somebody waits for it, or reads what comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def device_buffer(self, host: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(host)

    def send(self, host: torch.Tensor, there: torch.Tensor, after: Mark) -> Mark:  # noqa: ARG002
        device = self

        class Unread:
            read = False

            def wait(self) -> None:
                if not self.read:
                    device.waits += 1
                    there.copy_(host)
                self.read = True

        return Unread()


def _flat(value: int, size: int = 4) -> Frame:
    return Frame(np.full((size, size, 3), value, np.uint8), size, size)


def test_a_buffer_is_not_written_while_the_device_still_reads_it() -> None:
    device = Late()
    staging = Staging(device, 4)
    sent = []
    for value in range(5):
        with staging.sent([_flat(value), _flat(value + 100)]) as pixels_BSS3:
            sent.append(pixels_BSS3)
        # The first two batches have a buffer each; from then on the oldest is waited for, and has arrived whole.
        assert device.waits == max(0, value + 1 - BUFFERS)
        if value >= BUFFERS:
            before = value - BUFFERS
            assert sent[before][:, 0, 0, 0].tolist() == [before, before + 100]
    assert len({tensor.data_ptr() for tensor in sent}) == BUFFERS


def test_a_buffer_on_the_device_is_marked_as_used_only_after_its_readers_have_begun() -> None:
    marks: list[str] = []

    class Noting(CPU):
        def mark(self) -> Mark:
            marks.append("marked")
            return super().mark()

    with Staging(Noting(), 4).sent([_flat(1)]):
        marks.append("read")
    assert marks == ["read", "marked"]


def test_buffers_grow_with_the_batch_and_keep_what_is_smaller() -> None:
    staging = Staging(CPU(), 4)
    for rows in (1, 3, 2):
        with staging.sent([_flat(row) for row in range(rows)]) as pixels_BSS3:
            assert pixels_BSS3[:, 0, 0, 0].tolist() == list(range(rows))


def test_buckets_are_powers_of_two() -> None:
    assert [bucket(rows) for rows in (1, 2, 3, 4, 5, 16, 17)] == [1, 2, 4, 4, 8, 16, 32]
    assert buckets(16) == [16, 8, 4, 2, 1]
    assert buckets(48) == [64, 32, 16, 8, 4, 2, 1]
    assert TorchBackend("cpu").batches(48) == (1,)


def test_batches_of_all_sizes_are_recorded_in_few_and_see_only_their_own_rows() -> None:
    device, computed = Rehearsal(), []

    def double(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        computed.append(len(inputs[0]))
        return [2 * inputs[0]]

    bucketed = Bucketed(device, double)
    for rows in (3, 4, 1, 3, 7, 2, 4):
        given = torch.arange(rows * 5.0).reshape(rows, 5)
        (found,) = bucketed([given])
        assert torch.equal(found, 2 * given)
    assert device.recorded == 4  # of 1, 2, 4 and 8
    assert set(computed) == {1, 2, 4, 8}


def test_a_mould_computes_as_each_student_that_it_takes_on(bundle: ModelBundle) -> None:
    def levels() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [torch.randn(2, width, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
                for width, side in ((40, 8), (112, 4), (192, 2), (80, 4))]  # fmt: skip

    def student(factor: float) -> Any:
        made = serving_form(bundle.student())
        made.get_buffer("divisor_0").mul_(factor)
        return made

    with torch.inference_mode():
        wanted = [made.anomaly_maps(levels()) for made in map(student, (1.0, 3.0))]
    assert not torch.equal(*wanted)
    students = [student(1.0), student(3.0)]
    blocks = [in_one_block(one) for one in students]
    mould = Mould(students[0])
    with torch.inference_mode():
        for turn in (0, 1, 1, 0):
            mould.take_on(blocks[turn])
            assert torch.equal(mould.module.anomaly_maps(levels()), wanted[turn])
            assert torch.equal(students[turn].anomaly_maps(levels()), wanted[turn])


def _engine(backend: TorchBackend, bundle: ModelBundle, other: ModelBundle, batch_size: int = 4) -> Engine:
    return Engine(lambda key: bundle if key.startswith("a") else other, backend=backend, batch_size=batch_size)


def test_a_gpus_way_gives_the_same_scores_in_the_same_order(
    bundle: ModelBundle, other_bundle: ModelBundle, good_frames: list[Frame]
) -> None:
    """More products than a batch holds rows of, four batches, two of them under way at a time."""
    keys = [("a1", "b1", "a2")[index * 7 % 3] for index in range(14)]
    plain = _engine(TorchBackend("cpu"), bundle, other_bundle).score(good_frames[:14], keys)
    backend = TorchBackend("rehearsal")
    engine = _engine(backend, bundle, other_bundle)
    for found, wanted in zip(engine.score(good_frames[:14], keys), plain, strict=True):
        assert found.score == pytest.approx(wanted.score, rel=1e-5)
        assert np.allclose(found.anomaly_map, wanted.anomaly_map, rtol=1e-4, atol=1e-5)
    recorded = backend.describe()["recorded"]
    engine.score(good_frames[:14], keys)
    assert backend.describe()["recorded"] == recorded  # all was recorded at the first time


def test_warming_up_records_all_and_says_how_long_it_took(
    bundle: ModelBundle, other_bundle: ModelBundle, good_frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    backend = TorchBackend("rehearsal")
    engine = _engine(backend, bundle, other_bundle)
    with caplog.at_level(logging.DEBUG, "model.engine.engine"):
        engine.warm("a1")
    assert "a1 is ready after" in caplog.text
    assert backend.describe()["recorded"] == 6  # teacher and student, in batches of 4, 2 and 1
    engine.warm("a2")
    engine.score(good_frames[:7], ["a1", "a2", "a1", "a1", "a2", "a2", "a1"])
    assert backend.describe()["recorded"] == 6


def test_the_next_batch_is_begun_before_the_last_is_waited_for(bundle: ModelBundle, good_frames: list[Frame]) -> None:
    events: list[str] = []

    class Noting(TorchBackend):
        def begin(self, manifest: Any, frames: Any, students: Any) -> Any:
            number = sum(event.startswith("begun") for event in events)
            events.append(f"begun {number}")
            come = super().begin(manifest, frames, students)

            def noted() -> Any:
                events.append(f"waited {number}")
                return come()

            return noted

    Engine(lambda _: bundle, backend=Noting("cpu"), batch_size=2).score(good_frames[:6], ["a"] * 6)
    assert events == ["begun 0", "begun 1", "waited 0", "begun 2", "waited 1", "waited 2"]


def test_waiting_for_a_batch_keeps_no_other_caller_from_the_device(
    bundle: ModelBundle, good_frames: list[Frame]
) -> None:
    first_waits, second_done = threading.Event(), threading.Event()

    class Waiting(TorchBackend):
        def begin(self, manifest: Any, frames: Any, students: Any) -> Any:
            come = super().begin(manifest, frames, students)
            if first_waits.is_set():
                return come

            def slow() -> Any:
                first_waits.set()
                assert second_done.wait(300)
                return come()

            return slow

    engine = Engine(lambda _: bundle, backend=Waiting("cpu"))
    thread = threading.Thread(target=lambda: engine.score(good_frames[:1], ["a"]), daemon=True)
    thread.start()
    assert first_waits.wait(300)
    assert len(engine.score(good_frames[1:2], ["a"])) == 1
    second_done.set()
    thread.join(300)
    assert not thread.is_alive()


def test_weights_rounded_once_are_those_that_autocast_rounds(bundle: ModelBundle) -> None:
    student = serving_form(bundle.student())
    rounded = in_precision(student, torch.float16)
    assert in_precision(student, torch.float32) is student
    names = {name for name, tensor in rounded.named_parameters() if tensor.dtype == torch.float16}
    assert any(name.startswith("decoder") for name in names)
    assert all(tensor.dtype == torch.float32 for tensor in (*student.parameters(), *rounded.buffers()))
    levels = [torch.randn(1, width, side, side) for width, side in ((40, 8), (112, 4), (192, 2), (80, 4))]
    with torch.inference_mode():
        found = [one.anomaly_maps(levels, precision=torch.float16) for one in (student, rounded)]
    assert torch.equal(*found)


def test_a_precision_that_moves_scores_of_golden_images_too_far_is_not_taken(
    bundle: ModelBundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = TorchBackend("cpu", torch.float16, torch.float32)
    student = kept.load(bundle)
    assert kept.describe()["products"] == {"float16": 1}
    assert not caplog.text
    monkeypatch.setattr(torch_backend, "MOST_SHIFT", 0.0)
    refused = TorchBackend("cpu", torch.float16, torch.bfloat16, torch.float32)
    exact = refused.load(bundle)
    assert refused.describe()["products"] == {"float32": 1}
    assert exact.bytes < student.bytes  # which keeps both until its images have decided
    for precision in ("float16", "bfloat16"):
        assert f"disc/ does not compute in {precision}: it moves scores of golden images by" in caplog.text


@pytest.mark.parametrize("device", ["cpu", "rehearsal"])
def test_the_first_good_images_of_a_product_decide_and_get_the_exact_score(
    device: str,
    bundle: ModelBundle,
    other_bundle: ModelBundle,
    good_frames: list[Frame],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, keys = good_frames[16:], ["a", "b"] * 4
    exact = [one.score for one in _engine(TorchBackend("cpu"), bundle, other_bundle).score(seen, keys)]

    monkeypatch.setattr(torch_backend, "TRIAL_IMAGES", 4)  # of each of two products in each call
    backend = TorchBackend(device, torch.float16, torch.float32)
    engine = _engine(backend, bundle, other_bundle, batch_size=8)
    monkeypatch.setattr(torch_backend, "MOST_SHIFT", 1.0)
    first, then = ([one.score for one in engine.score(seen, keys)] for _ in range(2))
    assert first == pytest.approx(exact, rel=1e-5)
    assert then != pytest.approx(exact, rel=1e-5)
    assert backend.describe()["products"] == {"float16": 2}
    assert not caplog.text

    backend = TorchBackend(device, torch.float16, torch.float32)
    engine = _engine(backend, bundle, other_bundle, batch_size=8)
    engine.warm("a")
    engine.warm("b")  # gray frames do not look good, and decide nothing
    assert backend.describe()["products"] == {"float16": 2}
    monkeypatch.setattr(torch_backend, "MOST_SHIFT", 0.0)
    assert [one.score for one in engine.score(seen[:1], ["a"])] == pytest.approx(exact[:1], rel=1e-5)
    assert "disc/ computes in float32 from now on: float16 moves scores of its images by" in caplog.text
    assert backend.describe()["products"] == {"float16": 1, "float32": 1}
    monkeypatch.setattr(torch_backend, "MOST_SHIFT", 1.0)
    engine.score(seen, keys)  # the other one's trial ends
    mixed = [one.score for one in engine.score(seen, keys)]  # a batch of both precisions
    assert mixed[::2] == pytest.approx(exact[::2], rel=1e-5)
    assert mixed[1::2] != pytest.approx(exact[1::2], rel=1e-5)


def test_a_score_that_is_no_number_is_no_small_shift() -> None:
    assert shift([1.0, 2.02], [1.0, 2.0]) == pytest.approx(0.01)
    assert shift([float("nan"), 2.0], [1.0, 2.0]) == float("inf")
    assert shift([float("inf"), 2.0], [1.0, 2.0]) == float("inf")


def test_golden_images_are_always_the_same_and_hold_detail() -> None:
    one, other = golden_frames(64), golden_frames(64)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, other, strict=True))
    assert all(frame.pixels.shape == (64, 64, 3) and frame.pixels.std() > 2 for frame in one)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_a_gpu_replays_what_the_cpu_computes(
    bundle: ModelBundle, other_bundle: ModelBundle, good_frames: list[Frame]
) -> None:
    keys = [("a1", "b1", "a2")[index * 7 % 3] for index in range(24)]
    exact = _engine(TorchBackend("cpu"), bundle, other_bundle).score(good_frames, keys)
    backend = TorchBackend("cuda")
    engine = _engine(backend, bundle, other_bundle)
    for _ in range(3):  # again and again, by the same recordings
        for found, wanted in zip(engine.score(good_frames, keys), exact, strict=True):
            assert found.score == pytest.approx(wanted.score, rel=1e-3)
    assert 3 <= int(str(backend.describe()["recorded"])) <= 9  # the teacher and two shapes of students, in 4, 2 and 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_threads_share_a_gpu_while_students_are_loaded(bundle: ModelBundle, good_frames: list[Frame]) -> None:
    engine = Engine(lambda _: bundle, device="cuda", batch_size=8, memory_limit_bytes=1)
    (wanted,) = {round(one.score, 2) for one in engine.score(good_frames[:1] * 8, ["a"] * 8)}
    failures: list[object] = []

    def work(name: str) -> None:
        try:
            for turn in range(20):
                for one in engine.score(good_frames[:1] * 8, [f"a{name}{turn % 3}"] * 8):
                    assert one.score == pytest.approx(wanted, rel=0.03)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
