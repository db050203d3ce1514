"""What good parts may look like besides: the light, the place and the sharpness that a fit is told to bear.

Copies of good images, each changed to a random end of each stated range, take part in what is learned of good parts and
in the calibration, so the threshold is that of such images. A range is the user's to state, for it has a price: what is
borne as a change of light can't be rejected as a change of colour.
"""

from __future__ import annotations

import io
import math
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from model.images.frames import Frame

_JPEG_SHARE = 0.5


def _share(value: Any) -> Any:
    """20% and 0.2 are the same."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip().removesuffix("%")) / 100
    return value


class Tolerance(BaseModel):
    """Each is the most that a copy is changed by; 0 leaves it out."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    light: Annotated[float, BeforeValidator(_share)] = Field(
        0.05, ge=0, le=0.5, description="Darker or brighter by this share, 20% or 0.2."
    )
    shift_px: float = Field(0.5, ge=0, le=32, description="Moved, in pixels of the resized image (`fit.size`).")
    turn_deg: float = Field(0.0, ge=0, le=45, description="Turned, in degrees.")
    blur_px: float = Field(0.0, ge=0, le=8, description="Blurred by a gaussian, its deviation in pixels as above.")
    noise: float = Field(0.0, ge=0, le=32, description="Noise of the camera, its deviation in gray levels of 255.")
    jpeg: int = Field(95, ge=1, le=100, description="Lowest JPEG quality; 100 leaves it out.")

    @property
    def none(self) -> bool:
        """Whether copies would be the images themselves."""
        return self == NOTHING


NOTHING = Tolerance(light=0, shift_px=0, turn_deg=0, blur_px=0, noise=0, jpeg=100)


def jittered(frame: Frame, tolerance: Tolerance, rng: np.random.Generator) -> Frame:
    """A copy of a good frame as it may look, too. What leaves the image is replaced by its mirrored edge.

    Light and place are at an end of their ranges: with copies from the middle, too, parts that lay at the end were
    rejected that were to be borne (docs/method.md). Sharpness is anywhere between none and all of its range.
    """
    pixels = frame.pixels
    if tolerance.shift_px or tolerance.turn_deg:
        right, down, turn = rng.choice((-1.0, 1.0), 3)
        pixels = moved(pixels, right * tolerance.shift_px, down * tolerance.shift_px, turn * tolerance.turn_deg)
    if tolerance.light:
        pixels = lit(pixels, 1 + rng.choice((-1.0, 1.0)) * tolerance.light)
    if tolerance.blur_px:
        pixels = blurred(pixels, rng.uniform(0, tolerance.blur_px))
    if tolerance.noise:
        pixels = noisy(pixels, rng.uniform(0, tolerance.noise), rng)
    if tolerance.jpeg < 100 and rng.random() < _JPEG_SHARE:
        pixels = compressed(pixels, int(rng.integers(tolerance.jpeg, 100)))
    return Frame(pixels, frame.width, frame.height)


def moved(pixels_HW3: np.ndarray, right: float, down: float, turn_deg: float) -> np.ndarray:
    """Turned about the middle, counter-clockwise, then moved; bilinear, beyond the edge mirrored."""
    height, width = pixels_HW3.shape[:2]
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2 - right, np.arange(height) - (height - 1) / 2 - down)
    from_x, from_y = cos * x - sin * y, sin * x + cos * y
    grid = np.stack([2 * from_x / width, 2 * from_y / height], axis=-1).astype(np.float32)
    image_13HW = torch.from_numpy(np.array(pixels_HW3)).permute(2, 0, 1)[None].float()
    found = F.grid_sample(
        image_13HW, torch.from_numpy(grid)[None], mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _bytes(found[0].permute(1, 2, 0).numpy())


def lit(pixels_HW3: np.ndarray, gain: float) -> np.ndarray:
    """Under gain times the light; what is white stays so."""
    return _bytes(pixels_HW3 * np.float32(gain))


def blurred(pixels_HW3: np.ndarray, deviation_px: float) -> np.ndarray:
    """Out of focus."""
    return np.asarray(Image.fromarray(pixels_HW3).filter(ImageFilter.GaussianBlur(deviation_px)))


def noisy(pixels_HW3: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """With independent noise of this deviation, in gray levels."""
    noise: np.ndarray = rng.standard_normal(pixels_HW3.shape, dtype=np.float32)
    return _bytes(pixels_HW3 + np.float32(deviation) * noise)


def compressed(pixels_HW3: np.ndarray, quality: int) -> np.ndarray:
    """Through a JPEG and back."""
    stream = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        return np.asarray(image.convert("RGB"))


def _bytes(values: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels
