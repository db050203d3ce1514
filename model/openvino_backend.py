"""OpenVINO: the fast runtime on a CPU. PyTorch stays the reference that it is checked against.

Every graph takes one image. On a CPU a larger batch gains nothing, its activations only leave the cache: EfficientNet-
Lite0 takes a third more time per image at batch 16 than at batch 1. So there is one shape per graph, nothing to pad and
nothing to compile later; images of a batch are computed beside one another, one thread each.

    teacher                     converted and compiled once per size, shared by all products
    student, by architecture    converted once, with its weights as inputs
    student, by product         the same graph with the product's weights bound as constants, then compiled
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from model.backend import Features, LoadedStudent, check_teacher
from model.frames import Frame
from model.manifest import ModelBundle, Preprocessing, state_bytes
from model.serving_form import serving_form
from model.student import Student
from model.teachers import Teacher, load_teacher, teacher_spec

if TYPE_CHECKING:
    import openvino

Levels = list[np.ndarray]
"""One image's teacher levels, float32 [1, H_l, W_l, C_l]: channels last, as the kernels on both sides have them."""

_SMALL_STUDENT_BYTES = 16 << 20
"""Smaller students can't fill several threads with one image: they take one thread each, and images run in parallel."""
_MOST_STREAMS = 4
"""More images of one product are not computed at a time; each takes kernels and activations of its own."""
_STREAM_BYTES = 8 << 20
_COPIES = 2
"""Resident memory of a compiled student, measured: its weights as given and as its kernels want them, and per stream
the compiled kernels and activations."""

_graphs: dict[Hashable, openvino.Model] = {}
_graphs_lock = threading.Lock()


def installed() -> bool:
    """Whether the package is there; nothing is imported."""
    return importlib.util.find_spec("openvino") is not None


def runtime() -> Any:
    """The openvino package, imported without its telemetry.

    It reports each import and conversion to a statistics service unless the user has opted out; an inspection system
    in a plant must not. Where the reporting package cannot be imported, openvino puts an idle one in its place.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVINOBackend:
    """float32 on the CPU. threads: none takes torch's number."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or torch.get_num_threads()
        self._core = runtime().Core()
        self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="openvino")
        self._weights: dict[str, str] = {}
        self._teachers: dict[tuple[str, Preprocessing, int], Graph] = {}

    def load(self, bundle: ModelBundle) -> LoadedStudent:
        backbone = bundle.manifest.backbone
        if backbone.name not in self._weights:
            self._weights[backbone.name] = load_teacher(backbone.name).weights_sha256
        check_teacher(bundle.manifest, self._weights[backbone.name])
        student = serving_form(bundle.student())
        size = state_bytes(student)
        streams = min(self._threads, _MOST_STREAMS) if size <= _SMALL_STUDENT_BYTES else 1
        threads = streams if size <= _SMALL_STUDENT_BYTES else self._threads
        graph = Graph(self._core, student_graph(student, backbone.name), threads, streams)
        return OpenVINOStudent(graph, _COPIES * size + streams * _STREAM_BYTES)

    def features(self, backbone: str, preprocessing: Preprocessing, frames: Sequence[Frame]) -> Features:
        # One image gets all threads; of several, each gets one.
        streams = 1 if len(frames) == 1 else self._threads
        teacher = self._teacher(backbone, preprocessing, streams)
        return self._each(lambda frame: teacher([frame.pixels[None]]), frames)

    def maps(self, features: Features, students: Sequence[LoadedStudent]) -> np.ndarray:
        assert isinstance(features, list)

        def one(row: int) -> np.ndarray:
            student = students[row]
            assert isinstance(student, OpenVINOStudent)
            return student.graph(features[row])[0]

        return np.concatenate(self._each(one, range(len(students))))

    def _each(self, act: Callable[[Any], Any], rows: Sequence[Any]) -> list[Any]:
        if len(rows) == 1 or self._threads == 1:
            return [act(row) for row in rows]
        return list(self._workers.map(act, rows))

    def _teacher(self, backbone: str, preprocessing: Preprocessing, streams: int) -> Graph:
        key = (backbone, preprocessing, streams)
        if key not in self._teachers:
            model = teacher_graph(backbone, self._weights[backbone], preprocessing)
            self._teachers[key] = Graph(self._core, model, self._threads, streams)
        return self._teachers[key]


class OpenVINOStudent:
    """A product's compiled student. bytes: resident memory, see _COPIES."""

    def __init__(self, graph: Graph, size: int) -> None:
        self.graph = graph
        self.bytes = size


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
        self._idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        request = self._idle.get()
        try:
            return list(request.infer(list(inputs), share_inputs=True).values())
        finally:
            self._idle.put(request)


# Conversion


def teacher_graph(backbone: str, weights_sha256: str, preprocessing: Preprocessing) -> openvino.Model:
    """Pixels uint8 [1, S, S, 3] -> three levels [1, H_l, W_l, C_l], normalisation included."""

    def convert() -> openvino.Model:
        pixels_1SS3 = torch.zeros((1, preprocessing.size, preprocessing.size, 3), dtype=torch.uint8)
        return converted(_FromPixels(load_teacher(backbone), preprocessing), (pixels_1SS3,))

    return _once(("teacher", backbone, weights_sha256, preprocessing), convert)


def student_graph(student: Student, backbone: str) -> openvino.Model:
    """Levels [1, H_l, W_l, C_l] -> smoothed maps [1, S / 4, S / 4], of a student in serving form."""
    spec = teacher_spec(backbone)
    names, weights = zip(*_state(student), strict=True)

    def convert() -> openvino.Model:
        levels = [
            torch.ones((1, student.size // stride, student.size // stride, width))
            for width, stride in zip(spec.widths, spec.strides, strict=True)
        ]
        return converted(_FromWeights(student, names, len(levels)), (*levels, *weights))

    shared = _once(("student", backbone, _architecture(student)), convert)
    return _bound(shared, [weight.contiguous().numpy() for weight in weights])


def converted(module: nn.Module, example: tuple[torch.Tensor, ...]) -> openvino.Model:
    """A module's computation on inputs of the example's shapes."""
    openvino = runtime()
    with warnings.catch_warnings(), torch.no_grad():
        # Shapes are constants of the trace on purpose: each graph has one.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), example, check_trace=False)
        model = openvino.convert_model(traced, example_input=example)
    model.reshape({index: list(tensor.shape) for index, tensor in enumerate(example)})
    return model


def _once(key: Hashable, convert: Callable[[], openvino.Model]) -> openvino.Model:
    """A graph is converted once per process: that takes a second or two."""
    with _graphs_lock:
        if key not in _graphs:
            _graphs[key] = convert()
        return _graphs[key]


def _bound(shared: openvino.Model, weights: Sequence[np.ndarray]) -> openvino.Model:
    """A copy of the graph whose last inputs, the weights, have become constants."""
    from openvino import opset13

    model = shared.clone()
    parameters = model.get_parameters()
    for parameter, weight in zip(parameters[len(parameters) - len(weights) :], weights, strict=True):
        constant = opset13.constant(weight)
        for reader in parameter.output(0).get_target_inputs():
            reader.replace_source_output(constant.output(0))
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
    return model


def _state(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """All parameters and buffers by name."""
    return [*module.named_parameters(), *module.named_buffers()]


def _architecture(module: nn.Module) -> Hashable:
    """What decides the computation besides the weights: equal for two modules that one graph can serve."""
    return tuple(
        (
            name,
            type(part).__qualname__,
            part.extra_repr(),
            tuple((key, str(value)) for key, value in vars(part).items() if not isinstance(value, dict | set)),
            tuple((key, tuple(tensor.shape)) for key, tensor in _state(part) if "." not in key),
        )
        for name, part in module.named_modules()
    )


class _FromPixels(nn.Module):
    """A teacher that takes frames as they are."""

    def __init__(self, teacher: Teacher, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.teacher = teacher
        self.scale_C = torch.tensor([1 / (255 * s) for s in preprocessing.std])
        self.shift_C = torch.tensor([-m / s for m, s in zip(preprocessing.mean, preprocessing.std, strict=True)])

    def forward(self, pixels_BHWC: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images_BCHW = (pixels_BHWC.float() * self.scale_C + self.shift_C).permute(0, 3, 1, 2)
        return tuple(level_BCHW.permute(0, 2, 3, 1) for level_BCHW in self.teacher(images_BCHW))


class _FromWeights(nn.Module):
    """A student whose weights are inputs, after the levels."""

    def __init__(self, student: Student, names: Sequence[str], levels: int) -> None:
        super().__init__()
        # Its weights are replaced while it is traced, and it must not be traced as a part with weights of its own.
        self.students = [copy.deepcopy(student)]
        self.places = [name.rpartition(".") for name in names]
        self.levels = levels

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        (student,) = self.students
        for (owner, _, name), weight in zip(self.places, inputs[self.levels :], strict=True):
            part = student.get_submodule(owner)
            (part._parameters if name in part._parameters else part._buffers)[name] = weight  # type: ignore[assignment]
        levels = [level_BHWC.permute(0, 3, 1, 2) for level_BHWC in inputs[: self.levels]]
        maps: torch.Tensor = student.anomaly_maps(levels)
        return maps
