"""Names that speak of defective parts, of good ones, of masks, and of neither."""

from pathlib import Path

import pytest

from jobs.fitting.datasets.names import (
    clearly_says_defective,
    files_that_say_defective,
    says_defective,
    says_good,
    says_masks,
)

DEFECTIVE = """
    NG ng NG_2024 ng01 nok n.i.O. NiO NotOK not_ok not-ok_left bad Bad-light defect defects Defekt defective anomaly
    anomalies anomalous reject Rejects rejected scratch scratches Scratches2 deep_scratch contamination broken_large
    bent_wire faulty_imprint Ausschuss Kratzer fehler beschädigt rebut défauts defecto 不良 缺陷品 불량
"""
GOOD = "OK ok good train Good_parts i.O. IO gut pass no_defects defect-free 良品 ok_2024"
NEITHER = "monday 2024-01-31 cam1 line3 bottle dental images Prüfung batch_7"
MASKS = "ground_truth GroundTruth ground-truth masks Mask gt"


@pytest.mark.parametrize("name", DEFECTIVE.split())
def test_folders_of_defective_parts(name: str) -> None:
    assert says_defective(name)
    assert not says_good(name)


@pytest.mark.parametrize("name", GOOD.split())
def test_folders_of_good_parts(name: str) -> None:
    assert says_good(name)
    assert not says_defective(name)


@pytest.mark.parametrize("name", NEITHER.split())
def test_folders_of_neither(name: str) -> None:
    assert not says_defective(name)
    assert not says_good(name)
    assert not says_masks(name)


@pytest.mark.parametrize("name", MASKS.split())
def test_folders_of_masks(name: str) -> None:
    assert says_masks(name)


@pytest.mark.parametrize(
    ("name", "clear"),
    [("NG", True), ("parts-bad", True), ("bad_parts", True), ("rejects", True), ("no_defects", False),
     ("crack_station", False), ("hole plates", False), ("cam_ng_left", False), ("monday", False)],
)  # fmt: skip
def test_the_folder_that_a_person_names_is_judged_by_clear_words_alone(name: str, clear: bool) -> None:
    assert clearly_says_defective(name) == clear


def test_files_are_told_apart_where_only_some_are_called_defective() -> None:
    some = [Path("000.png"), Path("scratch_001.png"), Path("002_NG.png"), Path("ok_003.png")]
    assert files_that_say_defective(some) == {some[1], some[2]}
    assert files_that_say_defective([Path("hole_plate_1.png"), Path("hole_plate_2.png")]) == set()
    every = [Path("ng_1.png"), Path("ng_2.png")]
    assert files_that_say_defective(every) == set(every)
