"""Where the time of an image goes: on the device by its own events, on the host by the clock."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from model.bench.engine import EngineOptions, OurMode
from model.bench.subject import Subject
from model.engine.device import Lap
from model.engine.precision import TRIAL_IMAGES
from model.engine.torch_backend import TorchBackend, TorchStudent
from model.images.frames import read_frame
from model.verdict.masks import cut
from model.verdict.pictures import encode_mask_png
from model.verdict.scored import Scored, scored

MOST_REPEATS_ON_A_CPU = 3


def measure_stages(subject: Subject, mode: OurMode, batch: int, options: EngineOptions) -> dict[str, object]:
    """Milliseconds an image, medians over repeats: of a mode that PyTorch computes.

    On the device "sent" is until the frames are there, "teacher" normalises and computes, "students" has targets,
    errors, statistics and maps, "fetched" brings maps to the host. "launched" is how long the host is busy with all
    of that: where it is longer than the device's, the host is what limits. The host's stages are of one thread.
    """
    assert isinstance(mode.backend, TorchBackend)
    engine = mode.engine(batch, options.threads)
    manifest = engine.warm("bench")
    frames = [subject.frames[row % len(subject.frames)] for row in range(batch)]
    student = mode.backend.load(mode.bundle)
    assert isinstance(student, TorchStudent)
    students = [student] * batch
    for _ in range(TRIAL_IMAGES):
        if student.exact:  # its first images are computed twice
            mode.backend.begin(manifest, frames, students)()
    seconds: dict[str, list[float]] = defaultdict(list)
    on_gpu = options.device.startswith("cuda")
    for repeat in range((options.repeats if on_gpu else min(options.repeats, MOST_REPEATS_ON_A_CPU)) + 1):
        laps: list[tuple[str, Lap]] = []
        mode.backend.laps = laps
        begun = time.perf_counter()
        come = mode.backend.begin(manifest, frames, students)
        launched = time.perf_counter() - begun
        maps = come()
        mode.backend.laps = None
        if repeat == 0:
            continue
        for (_, before), (name, after) in pairwise(laps):
            seconds[f"device: {name}"].append(after.seconds_since(before))
        seconds["host: launched"].append(launched)
        begun = time.perf_counter()
        results = [
            scored(maps_KHW, manifest.calibration, frame.width, frame.height, None, manifest.evidence)
            for maps_KHW, frame in zip(maps, frames, strict=True)
        ]
        seconds["host: judged"].append(time.perf_counter() - begun)
        seconds["host: decoded"].append(_decoding(subject, batch))
        seconds["host: cut and encoded"].append(_cutting(results))
    each = {name: round(1e3 * statistics.median(found) / batch, 4) for name, found in seconds.items()}
    on_device = {name: ms for name, ms in each.items() if name.startswith("device")}
    limit = _limit(each["host: launched"], sum(on_device.values()))
    return {
        "mode": mode.name,
        "batch": batch,
        "by": "CUDA events" if on_gpu else "clock",
        "ms_per_image": each,
        "longest_on_device": max(on_device, key=lambda name: on_device[name]),
        "limited_by": limit if on_gpu else "the processor, which is both",
    }


def _limit(launched_ms: float, device_ms: float) -> str:
    return "the host's launches" if launched_ms > device_ms else "the device"


def _decoding(subject: Subject, batch: int) -> float:
    size = subject.frames[0].size
    begun = time.perf_counter()
    for row in range(batch):
        read_frame(subject.jpegs[row % len(subject.jpegs)], size)
    return time.perf_counter() - begun


def _cutting(results: Sequence[Scored]) -> float:
    begun = time.perf_counter()
    for result in results:
        encode_mask_png(cut(result).mask)
    return time.perf_counter() - begun
