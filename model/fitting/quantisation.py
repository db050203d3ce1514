"""int8 on the CPU: a fitted version's teacher and student as OpenVINO graphs quantised by NNCF after training.

Ranges of activations are read off the product's own good images, so int8 is a property of a version: its graphs travel
with its weights, and its threshold is placed by the scores that they give. NNCF is needed where a version is made, not
where it serves.

What is quantised are the convolutions of the student's fusion, embedding and decoder, and of the teacher where it bears
that (TeacherSpec.int8). Targets, errors and maps are computed in float32: there differences of nearly equal numbers are
taken. Statistics are learned anew from what a quantised teacher makes of good images: its rounding is then part of what
good images vary by, at each place and in each direction.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.engine.openvino_backend import Graph, Levels, OpenVINOBackend
from model.engine.openvino_graphs import given, plain_student_graph, runtime, serialised, teacher_graph
from model.engine.serving_form import serving_form
from model.errors import FitError
from model.fitting.feature_cache import FeatureCache
from model.fitting.recalibration import raw_maps, recalibrated
from model.images.frames import Frame
from model.manifest import GIVEN, INT8_PREFIX, ModelBundle, Quantisation
from model.network.student import Student
from model.teachers import teacher_spec
from model.verdict.scored import judged

if TYPE_CHECKING:
    import openvino

RANGE_IMAGES = 64
_QUANTISED_PARTS = "fusion|embedding|decoder"
_LEAST_DEVIATION = 1e-3
_BATCH = 16
_CACHE_BYTES = 1 << 30


def quantised(
    bundle: ModelBundle, train: Sequence[Frame], held_out: Sequence[Frame], borne: Sequence[Frame] = ()
) -> ModelBundle:
    """An int8 version of a float32 one, calibrated anew.

    train: the good frames (or tiles) of the fit; ranges are read off at most RANGE_IMAGES evenly spread ones. held_out:
    those that the threshold is placed by. borne: a copy of each of train, as it is tolerated, or none. Raises FitError.
    """
    if bundle.manifest.quantisation is not None:
        raise FitError(f"{bundle.manifest.product}/{bundle.manifest.version} is int8 already")
    manifest = bundle.manifest
    reference = OpenVINOBackend()
    maps = raw_maps(reference, reference.load(bundle), manifest, held_out)
    before = np.array([judged(maps_KHW, manifest.evidence)[1] for maps_KHW in maps])

    frames = [train[place] for place in np.unique(np.linspace(0, len(train) - 1, RANGE_IMAGES).astype(int))]
    graphs = {}
    teacher = teacher_graph(manifest.backbone.name, manifest.backbone.weights_sha256, manifest.preprocessing)
    if teacher_spec(manifest.backbone.name).int8:
        teacher = _quantise(teacher, [frame.pixels[None] for frame in frames])
        graphs["teacher"] = serialised(teacher)
    compiled = reference.compiled(teacher)
    levels: list[Levels] = [compiled([frame.pixels[None]]) for frame in frames]
    fitted = bundle.student()
    if "teacher" in graphs and fitted.statistics is not None:
        _learn_statistics(fitted, compiled, train, borne)
    served = serving_form(fitted)
    inputs = [[*of_image, *given(served)] for of_image in levels]
    student = _quantise(plain_student_graph(served, manifest.backbone.name), inputs, only=_QUANTISED_PARTS)
    graphs["student"] = serialised(student)
    draft = _with_graphs(bundle, graphs, given(served), len(frames))

    anew = recalibrated(draft, OpenVINOBackend(), held_out)
    assert draft.manifest.quantisation is not None
    shift = score_shift(np.array(anew.manifest.heldout_scores), before)
    told = draft.manifest.quantisation.model_copy(update={"score_shift_sd": shift})
    return ModelBundle(anew.manifest.model_copy(update={"quantisation": told}), anew.weights)


def score_shift(scores: np.ndarray, before: np.ndarray) -> float:
    """model.manifest.Quantisation's score_shift_sd, of the same images' scores, above 0, [N]."""
    now, then = (np.log(of) - np.median(np.log(of)) for of in (scores, before))
    return float(np.median(np.abs(now - then)) / max(then.std(), _LEAST_DEVIATION))


def _learn_statistics(student: Student, teacher: Graph, train: Sequence[Frame], borne: Sequence[Frame]) -> None:
    assert student.statistics is not None
    cache = FeatureCache(len(train) + len(borne), torch.float32, _CACHE_BYTES, torch.device("cpu"))
    for place, frame in enumerate((*train, *borne)):
        cache.put(place, [torch.from_numpy(level).permute(0, 3, 1, 2) for level in teacher([frame.pixels[None]])])

    def good() -> Iterator[list[torch.Tensor]]:
        return map(student.targets.all, cache.batches(_BATCH, len(train)))

    def changes() -> Iterator[list[torch.Tensor]]:
        return cache.changes(student.targets.all, len(borne), _BATCH)

    student.statistics.fit(good, changes if borne else None)


def _with_graphs(
    bundle: ModelBundle, graphs: dict[str, tuple[bytes, bytes]], more: Sequence[np.ndarray], images: int
) -> ModelBundle:
    """The bundle with the graphs as byte tensors, and what they take besides levels, beside the student's own."""
    tensors: dict[str, torch.Tensor] = dict(load_tensors(bundle.weights))
    for part, files in graphs.items():
        for suffix, data in zip(("xml", "bin"), files, strict=True):
            tensors[f"{INT8_PREFIX}{part}.{suffix}"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    for place, array in enumerate(more):
        tensors[f"{INT8_PREFIX}{GIVEN}.{place}"] = torch.from_numpy(array).half()  # exactly: they are learned so
    weights: bytes = save_tensors(tensors)
    digest = hashlib.sha256(b"".join(graphs["teacher"])).hexdigest() if "teacher" in graphs else None
    record = Quantisation(teacher_sha256=digest, images=images)
    update = {
        "quantisation": record,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "weights_bytes": len(weights),
    }
    return ModelBundle(bundle.manifest.model_copy(update=update), weights)


def _quantise(model: openvino.Model, inputs: Sequence[Any], only: str | None = None) -> openvino.Model:
    """only: a pattern of the parts' names to quantise; none quantises all that can be."""
    runtime()  # before nncf, which would report its use
    import nncf

    others = nncf.IgnoredScope(patterns=[f"^(?!.*({only})).*$"], validate=False) if only else None
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            # Symmetric activations: no accuracy is lost by them (docs/method.md), and no kernel needs zero points.
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(inputs),
            ignored_scope=others,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's log, and without its progress bars, which would go to stdout."""
    log = logging.getLogger("nncf")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
