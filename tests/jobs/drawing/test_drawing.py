"""The drawn products: the same for a seed, in the layout of MVTec AD, with masks that tell the truth."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.drawing import KINDS, PRODUCTS, background, draw, draw_dataset
from jobs.drawing.products import DIFFERS_BY

SIZE = 160
EVERY_KIND = [(product, kind) for product in PRODUCTS for kind in KINDS[product]]


def test_two_products_with_at_least_four_kinds_of_defect_each():
    assert len(PRODUCTS) == 2
    assert all(len(set(KINDS[product])) >= 4 for product in PRODUCTS)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_seed_gives_one_picture(product):
    first, again, other = draw(product, 7, None, SIZE), draw(product, 7, None, SIZE), draw(product, 8, None, SIZE)
    assert first.image.shape == (SIZE, SIZE, 3)
    assert first.image.dtype == np.uint8
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize(("product", "kind"), EVERY_KIND)
def test_a_defect_is_drawn_alike_for_a_seed(product, kind):
    first, again = draw(product, 3, kind, SIZE), draw(product, 3, kind, SIZE)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_good_product_has_an_empty_mask(product):
    assert not draw(product, 1, None, SIZE).mask.any()


@pytest.mark.parametrize(("product", "kind"), EVERY_KIND)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_mask_is_where_a_defective_image_differs_from_its_good_twin(product, kind, seed):
    defective, twin = draw(product, seed, kind, SIZE), draw(product, seed, None, SIZE)
    apart = np.abs(defective.image.astype(int) - twin.image.astype(int)).max(axis=2)
    assert defective.mask.any()
    assert apart[~defective.mask].max() <= DIFFERS_BY
    assert (apart[defective.mask] > DIFFERS_BY).mean() > 0.5, "closing small gaps must not make up the mask"
    assert defective.mask.mean() < 0.15, "a defect is a part of the picture"


@pytest.mark.parametrize("product", PRODUCTS)
def test_good_products_vary_less_than_a_defect_changes_them(product):
    """Otherwise nothing could be learnt from the good ones."""
    good = np.stack([draw(product, seed, None, SIZE).image.mean(axis=(0, 1)) for seed in range(8)])
    assert good.std(axis=0).max() < 10


def test_unknown_products_and_kinds_are_named():
    with pytest.raises(ValueError, match="sprocket"):
        draw("sprocket", 0, None, SIZE)
    with pytest.raises(ValueError, match="no defect 'hole'"):
        draw("flange", 0, "hole", SIZE)


def test_the_data_set_has_the_layout_of_mvtec_ad(tmp_path: Path):
    calls: list[tuple[int, int]] = []
    draw_dataset(tmp_path, "twill", train=3, good=2, defective=8, size=96, on_image=lambda *at: calls.append(at))
    root = tmp_path / "twill"
    assert sorted(path.name for path in (root / "train/good").iterdir()) == ["000.jpg", "001.jpg", "002.jpg"]
    assert len(list((root / "test/good").iterdir())) == 2
    assert {path.name for path in (root / "test").iterdir()} == {"good", *KINDS["twill"]}
    assert not (root / "ground_truth/good").exists()
    defective = [path for kind in KINDS["twill"] for path in (root / "test" / kind).iterdir()]
    assert len(defective) == 8
    for path in defective:
        with Image.open(root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png") as mask:
            assert mask.mode == "L"
            assert mask.size == (96, 96)
            assert {value for _, value in mask.getcolors()} == {0, 255}
    assert calls == [(number, 13) for number in range(1, 14)]


def test_data_sets_repeat_for_a_seed_and_share_nothing_between_seeds(tmp_path: Path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        draw_dataset(tmp_path / name, "flange", train=2, good=1, defective=1, seed=seed, size=96)

    def contents(name: str) -> dict[str, bytes]:
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.jpg")}

    assert contents("one") == contents("again")
    assert not set(contents("one").values()) & set(contents("other").values())
    assert len(set(contents("one").values())) == 4, "no image of a data set is drawn twice"


def test_no_defect_reaches_into_the_background_and_a_cloth_has_none():
    behind = background("flange", SIZE)
    assert behind is not None
    assert 0.3 < behind.mean() < 0.5
    for seed in range(12):
        assert not draw("flange", seed, "rim_chip", SIZE).mask[behind].any()
    assert background("twill", SIZE) is None
