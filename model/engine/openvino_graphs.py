"""OpenVINO's graphs: a teacher's and a student's, converted from the modules that PyTorch runs.

Every graph takes one image. Conversion takes a second or two, so it happens once per process for each architecture.

The directions of a product's statistics are no constants of its graph but inputs, given with every image: one
multiply-add is done with each, so they come from memory for every image wherever they lie, and as constants they are
packed anew for each stream. With many products in turn that took .8 ms an image longer, and a tenth more memory.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from model.manifest import Preprocessing
from model.network.student import Student
from model.teachers import Teacher, load_teacher, teacher_spec

if TYPE_CHECKING:
    import openvino

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


def teacher_graph(backbone: str, weights_sha256: str, preprocessing: Preprocessing) -> openvino.Model:
    """Pixels uint8 [1, S, S, 3] -> three levels [1, H_l, W_l, C_l], normalisation included."""

    def convert() -> openvino.Model:
        pixels_1SS3 = torch.zeros((1, preprocessing.size, preprocessing.size, 3), dtype=torch.uint8)
        return converted(_FromPixels(load_teacher(backbone), preprocessing), (pixels_1SS3,))

    return _once(("teacher", backbone, weights_sha256, preprocessing.input), convert)


def student_graph(student: Student, backbone: str) -> openvino.Model:
    """All levels [1, H_l, W_l, C_l], then `given` -> maps [1, K, S / 4, S / 4], of a student in serving form."""
    later = _given(student)
    names, weights = zip(*(pair for pair in _state(student) if pair[0] not in later), strict=True)

    def convert() -> openvino.Model:
        levels = _levels(student, backbone)
        module = _FromWeights(student, (*later, *names), len(levels))
        return converted(module, (*levels, *later.values(), *weights))

    shared = _once(("student", backbone, _architecture(student)), convert)
    return _bound(shared, [weight.contiguous().numpy() for weight in weights])


def given(student: Student) -> list[np.ndarray]:
    """What a student's graph takes with each image besides the levels, float32."""
    return [tensor.float().contiguous().numpy() for tensor in _given(student).values()]


def _given(student: Student) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in student.named_buffers() if name.endswith(".directions") and tensor.numel()}


def _levels(student: Student, backbone: str) -> list[torch.Tensor]:
    spec = teacher_spec(backbone)
    return [
        torch.ones((1, student.size // stride, student.size // stride, width))
        for width, stride in zip(spec.all_widths, spec.all_strides, strict=True)
    ]


def plain_student_graph(student: Student, backbone: str) -> openvino.Model:
    """The same with the weights as constants from the start: nodes bear the names of the student's parts."""
    levels = _levels(student, backbone)
    return converted(_FromLevels(student, len(levels)), (*levels, *_given(student).values()))


def serialised(model: openvino.Model) -> tuple[bytes, bytes]:
    """xml and weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.xml")
        runtime().serialize(model, path)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def deserialised(xml: bytes, weights: bytes) -> openvino.Model:
    return runtime().Core().read_model(xml, weights)


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


class _FromLevels(nn.Module):
    """A student that takes the levels channels last, then what is given with each image."""

    def __init__(self, student: Student, levels: int) -> None:
        super().__init__()
        self.student = copy.deepcopy(student)
        self.places = [name.rpartition(".") for name in _given(student)]
        self.levels = levels

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        for (owner, _, name), tensor in zip(self.places, inputs[self.levels :], strict=True):
            self.student.get_submodule(owner)._buffers[name] = tensor
        return self.student.anomaly_maps([level_BHWC.permute(0, 3, 1, 2) for level_BHWC in inputs[: self.levels]])


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
