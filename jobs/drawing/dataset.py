"""A drawn data set on disk, in the folder layout of MVTec AD."""

from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from jobs.drawing.products import KINDS, draw

_QUALITY = 92


def draw_dataset(
    folder: Path,
    product: str,
    *,
    train: int,
    good: int,
    defective: int,
    seed: int = 0,
    size: int = 512,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``folder/product/{train/good, test/good, test/<kind>, ground_truth/<kind>}``.

    Images are JPEG, masks 8-bit PNG of 0 and 255. ``defective`` images are dealt evenly over the kinds.
    ``on_image(done, total)`` is called after each image.
    """
    if product not in KINDS:
        raise ValueError(f"no drawn product {product!r}; there are {', '.join(KINDS)}")
    root = folder / product
    total = train + good + defective
    for number, (split, kind, stem) in enumerate(_plan(product, train, good, defective)):
        # Seeds of one data set never meet those of the next: two seeds give two disjoint sets.
        drawn = draw(product, seed * 1_000_003 + number, kind, size)
        image_path = root / split / (kind or "good") / f"{stem}.jpg"
        image_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.image).save(image_path, quality=_QUALITY)
        if kind is not None:
            mask_path = root / "ground_truth" / kind / f"{stem}_mask.png"
            mask_path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.mask).convert("L").save(mask_path)
        if on_image is not None:
            on_image(number + 1, total)


def _plan(product: str, train: int, good: int, defective: int) -> Iterator[tuple[str, str | None, str]]:
    """(split, kind, stem) of every image, in the order drawn."""
    yield from (("train", None, f"{number:03d}") for number in range(train))
    yield from (("test", None, f"{number:03d}") for number in range(good))
    kinds = KINDS[product]
    yield from (("test", kinds[number % len(kinds)], f"{number // len(kinds):03d}") for number in range(defective))
