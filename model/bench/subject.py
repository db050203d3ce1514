"""What is measured: drawn photographs and a model of them. Neither depends on a file of the user's."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.engine.choice import BackendName
from model.engine.engine import Engine
from model.fitting.options import FitOptions
from model.fitting.training import Fit, StepReport
from model.images.frames import Frame, read_frame
from model.manifest import ModelBundle

JPEG_SIDE = 512
"""Side of the photographs in pixels, as the cameras of bottle and its like deliver them."""
DEFECTIVE_EVERY = 8
HELD_OUT = 8


@dataclass(frozen=True, eq=False)
class Subject:
    """jpegs: every eighth one shows a defect; frames: the same images, decoded.

    int8: the same model quantised, on a CPU with the packages for it.
    """

    bundle: ModelBundle
    int8: ModelBundle | None
    jpegs: list[bytes]
    frames: list[Frame]


def drawn_photographs(count: int, side: int = JPEG_SIDE, *, defective_every: int = 0, seed: int = 0) -> list[bytes]:
    """JPEG files of a gray disc under uneven light, with sensor noise; sizes of files are those of real photographs."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    files = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        centre_y, centre_x = rng.normal(0, 0.01, 2)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < 0.36**2
        light = 1 + rng.normal(0, 0.05) * x + rng.normal(0, 0.05) * y
        pixels = np.where(inside, 165.0, 55.0)[..., None] * light[..., None] + rng.normal(0, 4, (side, side, 3))
        if defective_every and number % defective_every == defective_every - 1:
            at_y, at_x = rng.uniform(-0.2, 0.2, 2)
            pixels[((y - at_y) / 0.04) ** 2 + ((x - at_x) / 0.06) ** 2 < 1] -= 80  # a dark stain on the disc
        frame = Frame(np.clip(pixels, 0, 255).astype(np.uint8), side, side)
        buffer = io.BytesIO()
        Image.fromarray(frame.pixels).save(buffer, format="JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def prepare(
    backbone: str,
    size: int,
    jpegs: Sequence[bytes],
    *,
    steps: int,
    device: str = "cpu",
    quantise: bool = True,
    on_step: Callable[[StepReport], None] | None = None,
) -> Subject:
    """A short fit on drawn good images; a model of more steps scores at the same speed. Raises ModelError.

    quantise: also to int8, where that is possible.
    """
    good = [read_frame(data, size) for data in drawn_photographs(4 * HELD_OUT, seed=1)]
    options = FitOptions(backbone=backbone, size=size, steps=steps, batch=4, corruptions=0)
    bundle = Fit("bench", good[HELD_OUT:], good[:HELD_OUT], options, device).run(on_step)
    frames = [read_frame(data, size) for data in jpegs]
    int8 = None
    if quantise and can_quantise(device):
        # Only here: the benchmark runs where these packages are not installed.
        from model.fitting.quantisation import quantised

        int8 = _flagging_an_eighth(quantised(bundle, good[HELD_OUT:], good[:HELD_OUT]), frames, device, "openvino")
    return Subject(_flagging_an_eighth(bundle, frames, device, "torch"), int8, list(jpegs), frames)


def can_quantise(device: str) -> bool:
    return device == "cpu" and all(importlib.util.find_spec(package) for package in ("openvino", "nncf"))


def _flagging_an_eighth(bundle: ModelBundle, frames: Sequence[Frame], device: str, backend: BackendName) -> ModelBundle:
    """The bundle with limits that flag one image in eight, whatever its network can see.

    An untrained network would send all images to review, and cutting masks would be measured where there is none.
    """
    engine = Engine(lambda _: bundle, device=device, backend=backend)
    scores = [result.score for result in engine.score(frames, ["bench"] * len(frames))]
    limit = float(np.quantile(scores, 1 - 1 / DEFECTIVE_EVERY))
    limits = {"review_low": limit, "threshold": limit, "review_high": 1.1 * limit, "pixel_threshold": 0.9 * limit}
    calibration = bundle.manifest.calibration.model_copy(update=limits)
    return ModelBundle(bundle.manifest.model_copy(update={"calibration": calibration}), bundle.weights)
