"""A folder means good images alone or the MVTec layout; one level too high is refused with the call that is meant."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.fitting.datasets.folders import UNREADABLE
from jobs.fitting.datasets.layout import BESIDE, NO_KIND, ORPHANS, OUTSIDE, discover, refuse_defective, survey
from jobs.fitting.datasets.masks import encoded
from jobs.fitting.datasets.snapshots import DatasetError
from tests.pipeline.tiny import SIDE, texture

MASK = np.zeros((SIDE, SIDE), bool)
MASK[20:40, 30:60] = True


def put(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(encoded(MASK) if "mask" in path or "truth" in path else texture(len(path)))


def refusal(folder: str) -> str:
    with pytest.raises(DatasetError) as caught:
        refuse_defective(Path(folder), "bottle", survey(Path(folder)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "bad", ["NG", "ng", "nok", "Bad", "defect", "anomaly", "rejects", "scratch", "not_ok", "beschädigt"]
)
def test_ok_and_ng_one_level_too_high_is_refused_with_the_call_that_is_meant(bad: str) -> None:
    put("plant/OK/a.png", f"plant/{bad}/b.png")
    told = refusal("plant")
    assert f"plant/{bad}" in told
    assert "'linewatch ingest plant/OK --product bottle'" in told


def test_a_defective_folder_is_found_at_any_depth() -> None:
    put("plant/monday/a.png", "plant/tuesday/line3/NG/b.png")
    assert "plant/tuesday/line3/NG" in refusal("plant")


def test_a_folder_beside_one_that_is_called_good_is_not_taken_for_good() -> None:
    put("plant/OK/a.png", "plant/dropped/b.png")
    assert "plant/dropped" in refusal("plant")
    put("split/train/a.png", "split/test/b.png")
    assert "'linewatch ingest split/train --product bottle'" in refusal("split")
    put("loose/good/a.png", "loose/b.png")
    assert "loose/b.png" in refusal("loose")


def test_masks_among_good_images_are_refused() -> None:
    put("plant/images/a.png", "plant/masks/a.png")
    assert "plant/masks holds masks" in refusal("plant")


@pytest.mark.parametrize("name", ["NG", "parts-bad", "masks"])
def test_a_folder_that_is_itself_called_so_is_refused(name: str) -> None:
    put(f"plant/{name}/a.png")
    assert f"plant/{name}" in refusal(f"plant/{name}")


def test_folders_that_say_neither_are_good_images() -> None:
    put("plant/monday/a.png", "plant/tuesday/ok/b.png", "plant/wednesday/ok/c.png")
    assert refuse_defective(Path("plant"), "bottle", survey(Path("plant"))) == set()


def test_a_camera_sees_what_a_fit_refuses() -> None:
    put("plant/OK/a.png", "plant/NG/b.png")
    assert len(discover(Path("plant"))) == 2


def test_defective_images_below_train_good_are_refused_too() -> None:
    put("bottle/train/good/a.png", "bottle/train/good/NG/b.png", "bottle/test/good/c.png")
    assert "bottle/train/good/NG" in refusal("bottle")


def category(mask: str) -> None:
    put("bottle/train/good/a.png", "bottle/test/good/007.png", "bottle/test/scratch/007.png", mask)


@pytest.mark.parametrize(
    "mask",
    ["ground_truth/scratch/007_mask.png", "ground_truth/scratch/007.png", "ground_truth/scratch/007_mask.bmp",
     "ground_truth/scratch/007-mask.tif", "ground_truth/scratch/007_MASK.PNG", "ground_truth/scratch/007_gt.png",
     "ground_truth/scratch/mask_007.png", "ground_truth/scratch/007/000.png", "ground_truth/007_mask.png",
     "masks/scratch/007.png", "test/scratch/007_mask.png", "groundtruth/scratch/007.png"],
)  # fmt: skip
def test_masks_of_the_layouts_that_people_have_are_found(mask: str) -> None:
    category(f"bottle/{mask}")
    found = survey(Path("bottle"))
    scratched = [image for image in found.images if image.kind == "scratch"]
    assert [image.masks for image in scratched] == [(Path("bottle") / mask,)]
    assert found.unmasked == []
    assert found.left_out == {}


def test_the_parts_of_a_defect_are_all_its_mask() -> None:
    category("bottle/ground_truth/scratch/007/000.png")
    put("bottle/ground_truth/scratch/007/001.png")
    (scratched,) = [image for image in survey(Path("bottle")).images if image.kind == "scratch"]
    assert [path.name for path in scratched.masks] == ["000.png", "001.png"]


def test_mvtec_ad_2_has_its_labelled_images_in_test_public() -> None:
    put("can/train/good/a.png", "can/validation/good/b.png", "can/test_public/bad/d.png")
    put("can/test_public/ground_truth/bad/d_mask.png")
    found = survey(Path("can"))
    assert [(image.kind, len(image.masks)) for image in found.images] == [("good", 0), ("bad", 1)]
    assert found.left_out == {OUTSIDE: [Path("can/validation")]}


def test_a_mask_that_is_missing_or_could_be_several_is_named_with_its_image() -> None:
    category("bottle/ground_truth/scratch/007_mask.png")
    put("bottle/test/scratch/008.png", "bottle/test/scratch/009.png", "bottle/test/dent/010.png")
    put("bottle/test/scratch/010.png", "bottle/ground_truth/010_mask.png")
    put("bottle/ground_truth/scratch/009_mask.png", "bottle/ground_truth/scratch/009_mask.bmp")
    found = survey(Path("bottle"))
    told = {str(path.relative_to("bottle/test")): reason for path, reason in found.unmasked}
    assert told.keys() == {"scratch/008.png", "scratch/009.png", "dent/010.png", "scratch/010.png"}
    assert "no mask" in told["scratch/008.png"]
    assert "more than one mask" in told["scratch/009.png"]
    assert "the mask of 2 images" in told["dent/010.png"]
    assert [image.path.name for image in found.images if image.masks] == ["007.png"]


def test_without_any_masks_none_is_missed() -> None:
    put("bottle/train/good/a.png", "bottle/test/scratch/007.png")
    assert survey(Path("bottle")).unmasked == []


@pytest.mark.parametrize("name", ["OK", "ok", "good", "pass", "no_defects", "i.O."])
def test_good_images_that_judge_are_good_whatever_their_folder_is_called(name: str) -> None:
    put("bottle/train/good/a.png", f"bottle/test/{name}/b.png", "bottle/test/NG/c.png")
    assert [image.kind for image in survey(Path("bottle")).images if image.labelled] == sorted(["NG", "good"])


@pytest.mark.parametrize("name", ["test/dent", "ground_truth"])
def test_a_part_that_may_not_be_read_is_named_and_the_rest_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    category("bottle/ground_truth/scratch/007_mask.png")
    put("bottle/test/dent/b.png")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path) == Path("bottle") / name:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = survey(Path("bottle"))
    assert found.left_out[UNREADABLE] == [Path("bottle") / name]
    assert len(found.images) >= 3


def test_a_folder_of_the_layout_that_may_not_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    category("bottle/ground_truth/scratch/007_mask.png")

    def refusing(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(DatasetError, match="bottle can't be read: Permission denied"):
        survey(Path("bottle"))


def test_what_the_layout_has_no_place_for_is_named() -> None:
    category("bottle/ground_truth/scratch/007_mask.png")
    put("bottle/train/bad/x.png", "bottle/validation/good/y.png", "bottle/test/z.png")
    put("bottle/ground_truth/scratch/099_mask.png", "bottle/.cache/v.png")
    Path("bottle/license.txt").write_text("text")
    found = survey(Path("bottle"))
    assert {reason: {str(path) for path in paths} for reason, paths in found.left_out.items()} == {
        OUTSIDE: {"bottle/license.txt", "bottle/train/bad", "bottle/validation"},
        NO_KIND: {"bottle/test/z.png"},
        ORPHANS: {"bottle/ground_truth/scratch/099_mask.png"},
    }


def test_masks_beside_good_images_are_not_taken_for_good_images() -> None:
    put("good/007.png", "good/007_mask.png", "good/half_mask.png")
    found = survey(Path("good"))
    assert [image.path.name for image in found.images] == ["007.png", "half_mask.png"]
    assert found.left_out == {BESIDE: [Path("good/007_mask.png")]}


def test_a_folder_without_images_says_what_it_holds() -> None:
    put("good/a.gif", "good/.thumbs/b.png")
    with pytest.raises(DatasetError, match=r"holds no image .* only .*\.thumbs.* a\.gif"):
        survey(Path("good"))
