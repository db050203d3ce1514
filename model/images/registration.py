"""Parts brought to one place before they are judged: small shifts and turns are found against the mean good image.

A gaussian at each place asks that a part lies where the good ones lay. Where parts wander by some pixels, a version can
be told to tolerate that, which costs sensitivity, or to take it out: phase correlation (Kuglin and Hines, 1975) finds
the shift on a small gray image, and a few steps of inverse compositional alignment (Baker and Matthews, IJCV 2004) find
shift and turn to a fraction of a pixel. The image is moved back, judged, and its map is moved to where the part lies.

Textures have no place, and what looks aligned need not be (a tyre's outline is, its tread is not). What says so are the
good images: registration stays off, and says why, where they do not resemble their mean once aligned, where they do not
move, and where made-up defects are not told apart better for it (model/measures/placing.py).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from model.images.frames import Frame

SIDE = 96
"""Of the small gray images, in pixels."""
MOST_SHIFT = 1 / 8
"""Of the image's side; a part further off is judged where it lies."""
MOST_TURN = 6.0
"""Degrees."""
LEAST_CORRELATION = 0.6
"""Of an image with the mean one: less is no common place."""
LEAST_SHIFT_PX = 0.5
LEAST_TURN_DEG = 0.25
_ROUNDS = 2
_STEPS = 12
_STARTS_DEG = (0.0, -4.0, 4.0)
_MOST_LEARNED = 200
_TINY = 1e-9


@dataclass(frozen=True)
class Pose:
    """How a part lies: turned about the middle of the image, in radians, then moved, in shares of the image's side.

    correlation: of the image with the mean one, once moved back.
    """

    right: float
    down: float
    turn: float
    correlation: float

    @property
    def still(self) -> bool:
        return (self.right, self.down, self.turn) == (0.0, 0.0, 0.0)


class Registration(BaseModel):
    """What a manifest says of it. mean_png: the mean good image, gray, in base64; empty where it stays off.

    correlation: median of good images with their mean, once aligned; shift_px, turn_deg: root mean squares of how they
    lie, in pixels of the resized image and in degrees. gain: of AUROC on made-up defects, with its 95% interval; none
    where it was not tried.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    correlation: float = Field(ge=-1, le=1)
    shift_px: float = Field(ge=0)
    turn_deg: float = Field(ge=0)
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None
    mean_png: str = ""

    @property
    def on(self) -> bool:
        return bool(self.mean_png)

    def describe(self) -> str:
        """Whether it is on, and why."""
        lie = f"good parts lie {self.shift_px:.1f} px and {self.turn_deg:.1f} degrees from their mean place"
        if self.gain is not None and self.gain_interval is not None:
            low, high = (100 * end for end in self.gain_interval)
            lie += (
                f"; with it made-up defects are told apart by {100 * self.gain:+.1f} points of AUROC (95% interval "
                f"{low:+.1f} to {high:+.1f})"
            )
        if self.on:
            return f"registration is on: {lie}"
        if self.correlation < LEAST_CORRELATION:
            return (
                f"registration stays off: good images have no place in common (correlation {self.correlation:.2f} with "
                f"their mean, {LEAST_CORRELATION} is needed), as textures have none"
            )
        return f"registration stays off: {lie}" + ("" if self.gain is not None else ", so there is nothing to gain")

    def judged(self, gain: float, low: float, high: float) -> Registration:
        """The same with what it is worth; off where that can't be told from nothing."""
        told = {"gain": gain, "gain_interval": (low, high)} | ({} if low > 0 else {"mean_png": ""})
        return self.model_copy(update=told)

    def pose(self, frame: Frame) -> Pose:
        """How the part in a frame lies; still where that can't be told."""
        return _pose(_small(frame), _reference(self.mean_png))


def common_place(good: Sequence[Frame]) -> Registration:
    """From good frames [S, S]: the mean image that they are aligned to, or that there is none."""
    size = good[0].pixels.shape[0]
    every = max(1, math.ceil(len(good) / _MOST_LEARNED))
    small_NSS = torch.stack([_small(frame) for frame in good[::every]])
    mean_SS = small_NSS.mean(dim=0)
    poses: list[Pose] = []
    for _ in range(_ROUNDS):
        reference = _Reference.of(mean_SS)
        poses = [_pose(small_SS, reference, least=-1) for small_SS in small_NSS]
        mean_SS = torch.stack(
            [_moved(s[None, None], p, back=True)[0, 0] for s, p in zip(small_NSS, poses, strict=True)]
        )
        mean_SS = mean_SS.mean(dim=0)
    middle = [float(np.mean([getattr(pose, name) for pose in poses])) for name in ("right", "down", "turn")]
    shifts = [math.hypot(pose.right - middle[0], pose.down - middle[1]) * size for pose in poses]
    turns = [math.degrees(pose.turn - middle[2]) for pose in poses]
    found = Registration(
        correlation=float(np.median([pose.correlation for pose in poses])),
        shift_px=float(np.sqrt(np.mean(np.square(shifts)))),
        turn_deg=float(np.sqrt(np.mean(np.square(turns)))),
    )
    moves = found.shift_px >= LEAST_SHIFT_PX or found.turn_deg >= LEAST_TURN_DEG
    if found.correlation < LEAST_CORRELATION or not moves:
        return found
    return found.model_copy(update={"mean_png": _png(mean_SS)})


def straightened(frame: Frame, pose: Pose) -> Frame:
    """The frame with its part where the good ones lie; what comes in from beyond the edge is its mirror image."""
    if pose.still:
        return frame
    image_13SS = torch.from_numpy(np.array(frame.pixels)).permute(2, 0, 1)[None].float()
    found = _moved(image_13SS, pose, back=True)[0].permute(1, 2, 0).numpy()
    return Frame(np.clip(np.rint(found), 0, 255).astype(np.uint8), frame.width, frame.height)


def moved_along(map_HW: np.ndarray, pose: Pose) -> np.ndarray:
    """A straightened frame's map, float32 [S / 4, S / 4], as it lies on the frame; 0 where nothing was seen."""
    if pose.still:
        return map_HW
    found: np.ndarray = _moved(torch.from_numpy(map_HW)[None, None], pose, back=False, padding="zeros")[0, 0].numpy()
    return found


def _moved(x_BCSS: torch.Tensor, pose: Pose, *, back: bool, padding: str = "reflection") -> torch.Tensor:
    """Turned and moved as the pose says, or back. Square images; bilinear."""
    cos, sin = math.cos(pose.turn), math.sin(pose.turn)
    right, down = 2 * pose.right, 2 * pose.down  # grid_sample's coordinates run from -1 to 1
    if back:
        theta = [[cos, -sin, right], [sin, cos, down]]
    else:
        theta = [[cos, sin, -cos * right - sin * down], [-sin, cos, sin * right - cos * down]]
    grid = F.affine_grid(torch.tensor([theta]), [1, 1, *x_BCSS.shape[-2:]], align_corners=False)
    return F.grid_sample(x_BCSS, grid.to(x_BCSS.dtype), mode="bilinear", padding_mode=padding, align_corners=False)


@dataclass(frozen=True, eq=False)
class _Reference:
    """The mean image and what alignment needs of it: its normalised values, their change by right, down and turn."""

    values_SS: torch.Tensor
    changes_3P: torch.Tensor
    solve_33: torch.Tensor
    spectrum: torch.Tensor

    @staticmethod
    def of(mean_SS: torch.Tensor) -> _Reference:
        values_SS = _normalised(mean_SS)
        down_SS, right_SS = torch.gradient(values_SS)
        # By a share of the side, as poses are.
        down_SS, right_SS = down_SS * SIDE, right_SS * SIDE
        at = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
        turn_SS = down_SS * at[None, :] - right_SS * at[:, None]
        changes_3P = torch.stack([right_SS, down_SS, turn_SS]).flatten(1)
        hessian_33 = changes_3P @ changes_3P.T
        hessian_33 = hessian_33 + 1e-6 * hessian_33.diagonal().mean().clamp_min(_TINY) * torch.eye(3)
        return _Reference(values_SS, changes_3P, torch.linalg.inv(hessian_33), torch.fft.rfft2(values_SS * _window()))


def _pose(small_SS: torch.Tensor, reference: _Reference, least: float = LEAST_CORRELATION) -> Pose:
    """The best of a few starts. least: correlation from which on a pose counts."""
    still = Pose(0.0, 0.0, 0.0, _correlation(_normalised(small_SS), reference))
    if float(small_SS.std()) < _TINY:
        return still
    best = still
    for start in _STARTS_DEG:
        found = _aligned(small_SS, math.radians(start), reference)
        within = max(abs(found.right), abs(found.down)) <= MOST_SHIFT and abs(found.turn) <= math.radians(MOST_TURN)
        if within and found.correlation > best.correlation:
            best = found
    return best if best.correlation >= least else Pose(0.0, 0.0, 0.0, best.correlation)


def _aligned(small_SS: torch.Tensor, turn: float, reference: _Reference) -> Pose:
    turned_SS = _moved(small_SS[None, None], Pose(0, 0, turn, 0), back=True)[0, 0]
    right, down = _shift(turned_SS, reference)
    # Found in the turned image: turned along with it.
    cos, sin = math.cos(turn), math.sin(turn)
    right, down = cos * right - sin * down, sin * right + cos * down
    pose = Pose(right, down, turn, -1)
    for _ in range(_STEPS):
        seen_SS = _normalised(_moved(small_SS[None, None], pose, back=True)[0, 0])
        error_P = (seen_SS - reference.values_SS).flatten()
        step = (reference.solve_33 @ (reference.changes_3P @ error_P)).tolist()
        turn = pose.turn - step[2]
        cos, sin = math.cos(turn), math.sin(turn)
        pose = Pose(pose.right - (cos * step[0] - sin * step[1]), pose.down - (sin * step[0] + cos * step[1]), turn, -1)
        if max(abs(value) for value in step) < 1e-4:
            break
        if max(abs(pose.right), abs(pose.down)) > 2 * MOST_SHIFT:
            break
    seen_SS = _normalised(_moved(small_SS[None, None], pose, back=True)[0, 0])
    return Pose(pose.right, pose.down, pose.turn, _correlation(seen_SS, reference))


def _shift(seen_SS: torch.Tensor, reference: _Reference) -> tuple[float, float]:
    """By phase correlation, to a pixel of the small image: right and down, in shares of the side."""
    spectrum = torch.fft.rfft2(_normalised(seen_SS) * _window()) * reference.spectrum.conj()
    peaks_SS = torch.fft.irfft2(spectrum / spectrum.abs().clamp_min(_TINY), s=(SIDE, SIDE))
    reach = math.ceil(MOST_SHIFT * SIDE)
    near = torch.roll(peaks_SS, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    at = int(near.argmax())
    return (at % near.shape[1] - reach) / SIDE, (at // near.shape[1] - reach) / SIDE


def _small(frame: Frame) -> torch.Tensor:
    """Gray, float32 [SIDE, SIDE]."""
    gray = Image.fromarray(frame.pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.array(gray)).float()


def _normalised(x_SS: torch.Tensor) -> torch.Tensor:
    """Of mean 0 and deviation 1: another light is the same image."""
    return (x_SS - x_SS.mean()) / x_SS.std().clamp_min(_TINY)


def _correlation(values_SS: torch.Tensor, reference: _Reference) -> float:
    return float((values_SS * reference.values_SS).mean().clamp(-1, 1))


@lru_cache(maxsize=1)
def _window() -> torch.Tensor:
    """Down to 0 at the edges, which would correlate with themselves."""
    hann = torch.hann_window(SIDE, periodic=False)
    return hann[:, None] * hann


def _png(mean_SS: torch.Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mean_SS.clamp(0, 255).round().byte().numpy()).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@lru_cache(maxsize=256)
def _reference(mean_png: str) -> _Reference:
    with Image.open(io.BytesIO(base64.b64decode(mean_png)), formats=("PNG",)) as image:
        return _Reference.of(torch.from_numpy(np.array(image.convert("L"))).float())
