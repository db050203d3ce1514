"""The places that a fit leaves out: from the setting ``fit.ignore`` to an area on a product's images."""

from pathlib import Path

import numpy as np

from jobs.fitting.datasets import DatasetError, Datasets, Snapshot
from model import FitError, FitOptions, IgnoredArea, ImageLimits, drawn_area, masked_area, read_frame


def ignored_area(
    options: FitOptions, datasets: Datasets, snapshot: Snapshot, limits: ImageLimits
) -> IgnoredArea | None:
    """What the options' ``ignore`` asks for, on images of the size of the snapshot's first.

    A mask image is read here, where the fit begins: the worker may run where the file is not.

    Raises:
        DatasetError: the area doesn't fit the images, or the mask can't be read.
    """
    if options.ignore is None:
        return None
    where = f"{snapshot.product}: fit.ignore"
    if not snapshot.good:
        raise DatasetError(f"{where}: there is no good image to lay the area on")
    # The others' sizes are the fit's to check, which reads them all.
    frame = read_frame(datasets.image(snapshot.product, snapshot.good[0]), 32, limits, reading=options.reading)
    try:
        if not isinstance(options.ignore, str):
            area = drawn_area(options.ignore, frame.width, frame.height)
        else:
            where += f" {options.ignore}"
            area = masked_area(Path(options.ignore).read_bytes(), frame.width, frame.height)
        area.cover(options.size, options.tiles)
    except OSError as error:
        raise DatasetError(f"{where} can't be read: {error.strerror}") from None
    except FitError as error:
        raise DatasetError(f"{where}: {error}") from None
    return area


def out_of_sight(mask: np.ndarray | None, ignore: IgnoredArea | None) -> bool:
    """Whether a drawn defect lies wholly where its product's images are ignored: no model is to find it."""
    if mask is None or ignore is None or mask.shape != ignore.mask_HW.shape:
        return False
    return bool(mask.any() and not (mask & ~ignore.mask_HW).any())
