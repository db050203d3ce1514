"""How a version does on a product's labelled images, through the path that serves it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jobs.datasets import GOOD, DatasetError, Datasets, Item
from jobs.truth import read_mask
from model import Engine, ImageLimits, average_precision, image_auroc, pixel_auroc, read_frame
from model.resampling import upsample
from pipeline.inspector import bundle_loader
from pipeline.registry import Registry
from pipeline.settings import Settings
from pipeline.store import ObjectStore

CHUNK = 32


@dataclass(frozen=True)
class Evaluation:
    """Rates are shares of 1. None: the labelled images don't allow the measure."""

    product: str
    version: str
    good: int
    defective: int
    image_auroc: float | None
    average_precision: float | None
    pixel_auroc: float | None
    false_reject_rate: float | None
    escape_rate: float | None
    review_rate: float


def evaluate(
    settings: Settings,
    store: ObjectStore,
    product: str,
    version: str,
    on_image: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score the labelled images of the product's latest snapshot.

    Raises:
        DatasetError: the product has no labelled images.
    """
    datasets = Datasets(store)
    labelled = datasets.latest(product).labelled
    if not labelled:
        raise DatasetError(
            f"{product} has no labelled images: 'linewatch ingest' takes them from a folder in MVTec layout "
            "(test/good, test/<defect>, ground_truth/<defect>)"
        )
    engine = Engine(bundle_loader(Registry(store)), device=settings.engine.device, threads=settings.engine.threads)
    key = f"{product}/{version}"
    size = engine.manifest(key).preprocessing.size
    limits = ImageLimits(max_bytes=settings.limits.image_bytes, max_pixels=settings.limits.image_pixels)
    scores: list[float] = []
    verdicts: list[str] = []
    maps: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for begin in range(0, len(labelled), CHUNK):
        chunk = labelled[begin : begin + CHUNK]
        frames = [read_frame(datasets.image(product, item), size, limits) for item in chunk]
        for item, one in zip(chunk, engine.score(frames, [key] * len(frames)), strict=True):
            scores.append(one.normalised_score)
            verdicts.append(one.verdict)
            mask = _mask(datasets, product, item, one.height, one.width)
            if mask is not None:
                maps.append(upsample(one.anomaly_map, one.height, one.width))
                masks.append(mask)
        if on_image:
            on_image(min(begin + CHUNK, len(labelled)), len(labelled))
    return _evaluation(product, version, labelled, scores, verdicts, maps, masks)


def _mask(datasets: Datasets, product: str, item: Item, height: int, width: int) -> np.ndarray | None:
    """The ground truth at the image's size: drawn, empty for a good image, None where nobody drew it."""
    if item.kind == GOOD:
        return np.zeros((height, width), bool)
    data = datasets.mask(product, item)
    if data is None:
        return None
    mask = read_mask(data)
    return mask if mask.shape == (height, width) else None


def _evaluation(
    product: str,
    version: str,
    labelled: tuple[Item, ...],
    scores: list[float],
    verdicts: list[str],
    maps: list[np.ndarray],
    masks: list[np.ndarray],
) -> Evaluation:
    defective = [item.kind != GOOD for item in labelled]
    of_good = [v for v, bad in zip(verdicts, defective, strict=True) if not bad]
    of_bad = [v for v, bad in zip(verdicts, defective, strict=True) if bad]
    both = bool(of_good and of_bad)
    pixels = pixel_auroc(maps, masks) if any(mask.any() for mask in masks) else None
    return Evaluation(
        product=product,
        version=version,
        good=len(of_good),
        defective=len(of_bad),
        image_auroc=image_auroc(scores, defective) if both else None,
        average_precision=average_precision(scores, defective) if both else None,
        pixel_auroc=pixels,
        false_reject_rate=of_good.count("NotOK") / len(of_good) if of_good else None,
        escape_rate=of_bad.count("OK") / len(of_bad) if of_bad else None,
        review_rate=verdicts.count("NotDecidable") / len(verdicts),
    )
