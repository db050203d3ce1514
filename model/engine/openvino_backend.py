"""OpenVINO: the fast runtime on a CPU. PyTorch stays the reference that it is checked against.

Every graph takes one image. On a CPU a larger batch gains nothing, its activations only leave the cache: EfficientNet-
Lite0 takes a third more time per image at batch 16 than at batch 1. So there is one shape per graph, nothing to pad and
nothing to compile later; images of a batch are computed beside one another, one thread each.

    teacher                     converted and compiled once per size, shared by all products
    student, by architecture    converted once, with its weights as inputs
    student, by product         the same graph with the product's weights bound as constants, then compiled; but for
                                what is given with each image (model/engine/openvino_graphs.py)
    int8 versions               bring their own graphs of both (model/fitting/quantisation.py); equal teachers shared
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from model.engine.backend import LoadedStudent, MapsToCome, check_teacher
from model.engine.openvino_graphs import deserialised, given, runtime, student_graph, teacher_graph
from model.engine.serving_form import serving_form
from model.errors import BundleError
from model.images.frames import Frame
from model.manifest import Manifest, ModelBundle, NetworkInput, state_bytes
from model.teachers import load_teacher

if TYPE_CHECKING:
    import openvino

Levels = list[np.ndarray]
"""One image's teacher levels, float32 [1, H_l, W_l, C_l]: channels last, as the kernels on both sides have them."""

_SMALL_STUDENT_BYTES = 16 << 20
"""Smaller students can't fill several threads with one image: they take one thread each, and images run in parallel."""
_MOST_STREAMS = 4
"""More images of one product are not computed at a time; each takes kernels and activations of its own."""
_STREAM_BYTES = 16 << 20
_OWN_GRAPH_BYTES = 10 << 20
"""Of an int8 version's graph, which is not shared."""
_COPIES = 2
"""Resident memory of a compiled student, measured: its weights as given and as its kernels want them, and per stream
the compiled kernels and activations."""


class OpenVINOBackend:
    """float32, or int8 where a version is, on the CPU. threads: none takes torch's number."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or torch.get_num_threads()
        self._core = runtime().Core()
        self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="openvino")
        self._weights: dict[str, str] = {}
        self._teachers: dict[tuple[str, NetworkInput, int], Graph] = {}
        # Each lives as long as a student that came with it.
        self._int8_teachers: WeakValueDictionary[str, Int8Teacher] = WeakValueDictionary()

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        backbone = bundle.manifest.backbone
        if backbone.name not in self._weights:
            self._weights[backbone.name] = load_teacher(backbone.name).weights_sha256
        check_teacher(bundle.manifest, self._weights[backbone.name])
        if bundle.manifest.quantisation is not None:
            return self._load_int8(bundle)
        student = serving_form(bundle.student())
        constants = state_bytes(student) - sum(array.nbytes for array in given(student))
        return self._compiled_student(student_graph(student, backbone.name), constants, given(student))

    def begin(self, manifest: Manifest, frames: Sequence[Frame], students: Sequence[LoadedStudent]) -> MapsToCome:
        maps = self._maps(self._features(manifest, frames), students)
        return lambda: maps

    def batches(self, most: int) -> Sequence[int]:  # noqa: ARG002
        return (1,)

    def describe(self) -> dict[str, object]:
        return {"device": "cpu", "runtime": "openvino", "threads": self._threads}

    def _features(self, manifest: Manifest, frames: Sequence[Frame]) -> list[Levels]:
        # One image gets all threads; of several, each gets one.
        teacher = self._teacher(manifest, streams=1 if len(frames) == 1 else self._threads)
        return self._each(lambda frame: teacher([frame.pixels[None]]), frames)

    def _maps(self, features: Sequence[Levels], students: Sequence[LoadedStudent]) -> list[np.ndarray]:
        def one(row: int) -> np.ndarray:
            student = students[row]
            assert isinstance(student, OpenVINOStudent)
            maps_KHW: np.ndarray = student.graph([*features[row], *student.given])[0][0]
            return maps_KHW

        return self._each(one, range(len(students)))

    def _each(self, act: Callable[[Any], Any], rows: Sequence[Any]) -> list[Any]:
        if len(rows) == 1 or self._threads == 1:
            return [act(row) for row in rows]
        return list(self._workers.map(act, rows))

    def compiled(self, model: openvino.Model) -> Graph:
        """Any graph, for one call at a time."""
        return Graph(self._core, model, self._threads, streams=1)

    def _load_int8(self, bundle: ModelBundle) -> OpenVINOStudent:
        graphs = bundle.int8_graphs()
        student = self._compiled_student(
            deserialised(*graphs["student"]), len(graphs["student"][1]), bundle.int8_given()
        )
        student.bytes += _OWN_GRAPH_BYTES
        if "teacher" in graphs:
            student.teacher = self._int8_teacher(bundle.manifest, graphs["teacher"])
            student.bytes += _COPIES * len(graphs["teacher"][1])  # an upper bound: it may be shared
        return student

    def _int8_teacher(self, manifest: Manifest, graph: tuple[bytes, bytes]) -> Int8Teacher:
        assert manifest.quantisation is not None
        assert manifest.quantisation.teacher_sha256 is not None
        told = manifest.quantisation.teacher_sha256
        teacher = self._int8_teachers.get(told)
        if teacher is None:
            found = hashlib.sha256(b"".join(graph)).hexdigest()
            if found != told:
                raise BundleError(
                    f"the int8 teacher of {manifest.product}/{manifest.version} has sha256 {found[:16]}..., the "
                    f"manifest says {told[:16]}...; restore the version, or fit again"
                )
            teacher = self._int8_teachers[told] = Int8Teacher(*graph)
        return teacher

    def _compiled_student(self, model: openvino.Model, size: int, more: list[np.ndarray]) -> OpenVINOStudent:
        """size: bytes of the constants. more: what the graph takes besides the levels."""
        small = size <= _SMALL_STUDENT_BYTES
        streams = min(self._threads, _MOST_STREAMS) if small else 1
        graph = Graph(self._core, model, streams if small else self._threads, streams)
        size = _COPIES * size + streams * _STREAM_BYTES + sum(array.nbytes for array in more)
        return OpenVINOStudent(graph, size, more)

    def _teacher(self, manifest: Manifest, streams: int) -> Graph:
        if manifest.quantisation and manifest.quantisation.teacher_sha256:
            return self._int8_teachers[manifest.quantisation.teacher_sha256].graph(self._core, self._threads, streams)
        key = (manifest.backbone.name, manifest.preprocessing.input, streams)
        if key not in self._teachers:
            model = teacher_graph(key[0], self._weights[key[0]], manifest.preprocessing)
            self._teachers[key] = Graph(self._core, model, self._threads, streams)
        return self._teachers[key]


class Int8Teacher:
    """A quantised teacher, compiled once for each number of streams."""

    def __init__(self, xml: bytes, weights: bytes) -> None:
        self._model = deserialised(xml, weights)
        self._graphs: dict[int, Graph] = {}

    def graph(self, core: openvino.Core, threads: int, streams: int) -> Graph:
        if streams not in self._graphs:
            self._graphs[streams] = Graph(core, self._model, threads, streams)
        return self._graphs[streams]


class OpenVINOStudent:
    """A product's compiled student. bytes: resident memory, see _COPIES. given: what calls take besides the levels."""

    def __init__(self, graph: Graph, size: int, given: list[np.ndarray]) -> None:
        self.graph = graph
        self.bytes = size
        self.given = given
        self.teacher: Int8Teacher | None = None


class Graph:
    """A compiled model, called from any thread; as many calls run at a time as it has streams."""

    def __init__(self, core: openvino.Core, model: openvino.Model, threads: int, streams: int) -> None:
        properties = {
            # Never bfloat16 by itself: scores are those of the reference.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            # Several replicas on a machine would pin their threads to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", properties)
        self._inputs = len(compiled.inputs)
        self._idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(inputs) != self._inputs:  # OpenVINO would compute with whatever lies where the others belong
            raise ValueError(f"{len(inputs)} inputs to a graph of {self._inputs}")
        request = self._idle.get()
        try:
            return list(request.infer(list(inputs), share_inputs=True).values())
        finally:
            self._idle.put(request)
