"""How a version does on a product's labelled images, through the path that serves it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jobs.fitting.area import out_of_sight
from jobs.fitting.datasets import GOOD, DatasetError, Datasets, Item
from jobs.fitting.datasets.masks import read_mask
from model import Calibration, Frame, ImageLimits, Manifest, SizeDiffers, average_precision, image_auroc, pixel_auroc
from model.measures.proportions import share_interval
from model.verdict.scored import anomaly_pixels
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.storage.store import ObjectStore
from pipeline.stream.inspector import make_engine

CHUNK = 32


@dataclass(frozen=True)
class Evaluation:
    """Rates are shares of 1, intervals are theirs at 95%. None: the labelled images don't allow the measure.

    false_reject_rate: of good images, NotOK. good_over_threshold: of good images, at the threshold or above it, those
    in the review band included; this is what target and stated_interval speak of, which come from the fit's held-out
    good images. escape_rate: of defective images, OK. calibration: the fit's own statement, in words.

    left_out: labelled images that are in no figure, for the version's ignored area: their defect lies wholly in it, or
    they have another size than it is for. Pixels in it are in no pixel figure.
    """

    product: str
    version: str
    good: int
    defective: int
    image_auroc: float | None
    average_precision: float | None
    pixel_auroc: float | None
    false_reject_rate: float | None
    false_reject_interval: tuple[float, float] | None
    good_over_threshold: float | None
    good_over_threshold_interval: tuple[float, float] | None
    target_false_reject_rate: float
    stated_interval: tuple[float, float] | None
    escape_rate: float | None
    escape_interval: tuple[float, float] | None
    review_rate: float
    left_out: int
    calibration: str


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
    engine = make_engine(settings, Registry(store))
    key = f"{product}/{version}"
    manifest = engine.manifest(key)
    limits = settings.limits.images
    judged: list[Item] = []
    scores: list[float] = []
    verdicts: list[str] = []
    maps: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for begin in range(0, len(labelled), CHUNK):
        read = [_read(datasets, product, item, manifest, limits) for item in labelled[begin : begin + CHUNK]]
        chunk = [one for one in read if one]
        judged += [item for item, _, _ in chunk]
        frames = [frame for _, frame, _ in chunk]
        for (_, _, mask), one in zip(chunk, engine.score(frames, [key] * len(frames)), strict=True):
            scores.append(one.normalised_score)
            verdicts.append(one.verdict)
            if mask is not None:
                counted = ~one.ignored if one.ignored is not None else np.ones(mask.shape, bool)
                maps.append(anomaly_pixels(one)[counted])
                masks.append(mask[counted])
        if on_image:
            on_image(min(begin + CHUNK, len(labelled)), len(labelled))
    if not judged:
        raise DatasetError(
            f"none of the {len(labelled)} labelled images of {product} says anything of {version}: their defects lie "
            "in its ignored area, or they have another size than it is for"
        )
    left_out = len(labelled) - len(judged)
    return _evaluation(product, version, manifest.calibration, judged, left_out, scores, verdicts, maps, masks)


def _read(
    datasets: Datasets, product: str, item: Item, manifest: Manifest, limits: ImageLimits
) -> tuple[Item, Frame, np.ndarray | None] | None:
    """A labelled image with its ground truth; None where the version's ignored area leaves nothing to judge by it."""
    try:
        frame = manifest.read(datasets.image(product, item), limits)
    except SizeDiffers:
        return None
    mask = _mask(datasets, product, item, frame.height, frame.width)
    return None if out_of_sight(mask, manifest.ignore) else (item, frame, mask)


def _mask(datasets: Datasets, product: str, item: Item, height: int, width: int) -> np.ndarray | None:
    """The ground truth at the image's size: drawn, empty for a good image, None where nobody drew it."""
    if item.kind == GOOD:
        return np.zeros((height, width), bool)
    data = datasets.mask(product, item)
    if data is None:
        return None
    try:
        mask = read_mask(data)
    except DatasetError as error:  # stored before ingest looked into masks
        raise DatasetError(f"the mask of {item.name} ({item.kind}): {error}, and ingest it again") from None
    return mask if mask.shape == (height, width) else None


def _evaluation(
    product: str,
    version: str,
    calibration: Calibration,
    judged: list[Item],
    left_out: int,
    scores: list[float],
    verdicts: list[str],
    maps: list[np.ndarray],
    masks: list[np.ndarray],
) -> Evaluation:
    defective = [item.kind != GOOD for item in judged]
    of_good = [v for v, bad in zip(verdicts, defective, strict=True) if not bad]
    of_bad = [v for v, bad in zip(verdicts, defective, strict=True) if bad]
    over = sum(score >= 1 for score, bad in zip(scores, defective, strict=True) if not bad)
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
        false_reject_interval=share_interval(of_good.count("NotOK"), len(of_good)),
        good_over_threshold=over / len(of_good) if of_good else None,
        good_over_threshold_interval=share_interval(over, len(of_good)),
        target_false_reject_rate=calibration.target_false_reject_rate,
        stated_interval=calibration.false_reject_interval,
        escape_rate=of_bad.count("OK") / len(of_bad) if of_bad else None,
        escape_interval=share_interval(of_bad.count("OK"), len(of_bad)),
        review_rate=verdicts.count("NotDecidable") / len(verdicts),
        left_out=left_out,
        calibration=calibration.describe(),
    )
