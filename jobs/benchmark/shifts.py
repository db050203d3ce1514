"""The test images as a line shows them on another day: darker, brighter, moved, turned, blurred, noisy, compressed.

Each version is judged at its own threshold, which knows the good images of its fit alone.
"""

from collections.abc import Callable, Sequence

import numpy as np

from model import Frame, Scored, image_auroc
from model.images.tolerance import blurred, compressed, lit, moved, noisy

Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))


SHIFTS: dict[str, Shift] = {
    "light x0.7": lambda pixels, _: lit(pixels, 0.7),
    "light x0.8": lambda pixels, _: lit(pixels, 0.8),
    "light x1.2": lambda pixels, _: lit(pixels, 1.2),
    "shift 3 px": lambda pixels, rng: moved(pixels, 3 * _sign(rng), 3 * _sign(rng), 0),
    "shift 6 px": lambda pixels, rng: moved(pixels, 6 * _sign(rng), 6 * _sign(rng), 0),
    "turn 1°": lambda pixels, rng: moved(pixels, 0, 0, _sign(rng)),
    "turn 2°": lambda pixels, rng: moved(pixels, 0, 0, 2 * _sign(rng)),
    "blur 1 px": lambda pixels, _: blurred(pixels, 1),
    "noise 3": lambda pixels, rng: noisy(pixels, 3, rng),
    "JPEG q60": lambda pixels, _: compressed(pixels, 60),
}
"""Pixels are those of the resized image; a shift moves along both axes; noise is in gray levels of 255."""


TINT = (1.0, 0.85, 0.85)
"""Of red, green and blue: a reddish discolouration."""


def discoloured_found(judge: Callable[[Sequence[Frame]], list[Scored]], good: Sequence[Frame]) -> dict[str, float]:
    """Shares of good test images that are rejected once all of the image, or an ellipse of a ninth, is discoloured.

    What a fit bears or takes out of the light must not hide these.
    """
    found = {}
    for name, radius in (("all", 9.0), ("a ninth", 0.376)):
        frames = []
        for index, frame in enumerate(good):
            height, width = frame.pixels.shape[:2]
            centre_y, centre_x = np.random.default_rng(index).uniform(-0.3, 0.3, 2)
            y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
            inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
            tinted = np.where(inside[..., None], frame.pixels * np.array(TINT), frame.pixels)
            frames.append(Frame(np.rint(tinted).astype(np.uint8), frame.width, frame.height))
        judged = judge(frames)
        found[name] = sum(one.verdict == "NotOK" for one in judged) / max(1, len(judged))
    return found


def under_shifts(
    judge: Callable[[Sequence[Frame]], list[Scored]], frames: Sequence[Frame], defective: Sequence[bool]
) -> dict[str, dict[str, float]]:
    """Of each shift: shares of good images rejected and of defects let through, and image AUROC."""
    found = {}
    for name, shift in SHIFTS.items():
        shifted = [
            Frame(shift(frame.pixels, np.random.default_rng(index)), frame.width, frame.height)
            for index, frame in enumerate(frames)
        ]
        judged = judge(shifted)
        verdicts = {
            bad: [one.verdict for one, is_bad in zip(judged, defective, strict=True) if is_bad == bad]
            for bad in (False, True)
        }
        found[name] = {
            "false_reject_rate": verdicts[False].count("NotOK") / max(1, len(verdicts[False])),
            "escape_rate": verdicts[True].count("OK") / max(1, len(verdicts[True])),
            "image_auroc": image_auroc([one.score for one in judged], defective),
        }
    return found
