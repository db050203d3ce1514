"""Ground-truth masks, drawn by people or by the demo."""

import io
import struct
import warnings

import numpy as np
from PIL import Image

from jobs.fitting.datasets import DatasetError
from model import IgnoredArea

LARGEST_PIXELS = 64_000_000
# What Pillow's decoders raise on damaged bytes.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def read_mask(data: bytes) -> np.ndarray:
    """An encoded mask as bool [height, width]: defective where brighter than half.

    Raises:
        DatasetError: not a readable image.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise DatasetError(f"a mask of {image.width} x {image.height} pixels is larger than any image may be")
            return np.asarray(image.convert("L")) > 127
    except DECODER_ERRORS as error:
        raise DatasetError(f"a ground-truth mask can't be read: {error}") from None


def out_of_sight(mask: np.ndarray | None, ignore: IgnoredArea | None) -> bool:
    """Whether a drawn defect lies wholly where its product's images are ignored: no model is to find it."""
    if mask is None or ignore is None or mask.shape != ignore.mask_HW.shape:
        return False
    return bool(mask.any() and not (mask & ~ignore.mask_HW).any())
