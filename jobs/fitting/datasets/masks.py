"""What a ground-truth mask says: which pixels are defective. One meaning, whatever program drew it.

| drawn as | defective is |
|---|---|
| bilevel | white |
| gray, up to 64 | what is not 0: masks of 0 and 1, and numbered kinds of defects |
| gray beyond, 8 or 16 bit, float | what is brighter than half of its brightest, so that a soft edge is halved |
| colours | as gray, by the brightest channel: red on black counts |
| a palette | what is not its first colour; where that is not black and another is, what is not black |
| with transparency | what is opaque; where all is, as without |

Ingest stores masks as 8-bit PNG of 0 and 255, which mean the same.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from jobs.fitting.datasets.snapshots import DatasetError
from model import encode_mask_png

LARGEST_PIXELS = 64_000_000
MOST_LABELS = 64
"""Gray values up to here are numbers of kinds, not brightness."""
MOST_LEVELS = 8
MOSTLY = 0.5
# What Pillow's decoders raise on damaged bytes.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError, MemoryError,
                  AttributeError, struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip


def read_mask(data: bytes) -> np.ndarray:
    """An encoded mask as bool [height, width]: True where defective.

    Raises:
        DatasetError: not a readable image, or one whose meaning can't be told.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise DatasetError(f"a mask of {image.width} x {image.height} pixels is larger than any image may be")
            if getattr(image, "n_frames", 1) > 1:
                raise DatasetError("the mask has several pages, and it can't be told which counts: save one")
            return _meaning(image)
    except UnidentifiedImageError:
        raise DatasetError(f"the mask of {len(data)} bytes is no image, or cut off at its head") from None
    except DECODER_ERRORS as error:
        raise DatasetError(f"the mask can't be read: {error}") from None


def read_truth(paths: Sequence[Path], height: int, width: int) -> np.ndarray:
    """The masks of one image drawn in one, bool [height, width].

    Raises:
        DatasetError: one can't be read or has another size than the image; or together they mark nothing, or all.
    """
    truth = np.zeros((height, width), bool)
    for path in paths:
        try:
            mask = read_mask(path.read_bytes())
        except OSError as error:
            raise DatasetError(f"{path} can't be read: {error.strerror}") from None
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from None
        if mask.shape != truth.shape:
            raise DatasetError(
                f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels and the image {width} x {height}: draw it at the "
                "image's size"
            )
        truth |= mask
    if not truth.any():
        raise DatasetError(f"{paths[0]} marks no pixel")
    if truth.all():
        raise DatasetError(f"{paths[0]} marks every pixel: where is the defect?")
    return truth


def marks_most(mask: np.ndarray) -> bool:
    """Whether a mask marks more than half of its image, as one does whose black and white are swapped."""
    return float(mask.mean()) > MOSTLY


def encoded(mask: np.ndarray) -> bytes:
    """A mask as it is stored: 8-bit PNG, 255 where defective."""
    return encode_mask_png(mask.astype(np.uint8) * 255)


def _meaning(image: Image.Image) -> np.ndarray:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        bands = np.asarray(image.convert("RGBA"))
        alpha = bands[..., 3]
        return alpha > 127 if alpha.min() != alpha.max() else _by_brightness(bands[..., :3].max(axis=2))
    if image.mode == "P":
        return _by_palette(np.asarray(image), image.getpalette() or [])
    if image.mode == "1":
        return np.asarray(image).astype(bool)
    if image.mode in ("L", "F", "I") or image.mode.startswith("I;16"):
        return _by_brightness(np.asarray(image))
    return _by_brightness(np.asarray(image.convert("RGB")).max(axis=2))


def _by_palette(indexes: np.ndarray, palette: list[int]) -> np.ndarray:
    """Palettes of labels begin with the background, those of a program that counts colours with any."""
    colours = [palette[at : at + 3] for at in range(0, len(palette), 3)]
    black = [index for index in np.unique(indexes) if int(index) < len(colours) and not any(colours[int(index)])]
    if len(np.unique(indexes)) > MOST_LEVELS and all(len(set(colour)) == 1 for colour in colours):  # gray after all
        return _by_brightness(np.array([colour[0] for colour in colours], np.uint8)[indexes])
    if black and 0 not in black and colours and any(colours[0]):
        return ~np.asarray(np.isin(indexes, black))
    return np.asarray(indexes != 0)


def _by_brightness(values: np.ndarray) -> np.ndarray:
    """Gray values, [height, width] of any type.

    Raises:
        DatasetError: levels that a drawn mask doesn't have, so that half of them would be kept and half thrown away.
    """
    if not np.isfinite(values).all() or values.min() < 0:
        raise DatasetError("the mask has values below 0, or none at all: draw it in black and white")
    largest = float(values.max())
    if largest <= MOST_LABELS:
        least: float = largest / 2 if values.dtype.kind == "f" else 0
        few: np.ndarray = values > least
        return few
    marked: np.ndarray = values > largest / 2
    # A soft edge and the noise of a JPEG have many levels, of which the noise's are faint; kinds have few.
    many = len(np.unique(values)) > MOST_LEVELS
    faint: float = largest / 10 if many else 0
    between = int(np.count_nonzero((values > faint) & ~marked))
    if between > max(16, int(np.count_nonzero(marked)) // (1 if many else 4)):
        raise DatasetError(
            f"the mask has {between} pixels of gray below half of its brightest, {largest:g}, and it can't be told "
            "what they mean: draw it in black and white"
        )
    return marked
