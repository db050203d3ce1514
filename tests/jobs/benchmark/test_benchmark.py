"""The protocol on drawn folders: layouts, one row per method, and a stopped benchmark that goes on where it was."""

import csv
import json
import math
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.benchmark import Plan, Result, categories, run_plan
from jobs.benchmark.ablation import difference
from jobs.benchmark.runs import METHODS, _Images, _share
from jobs.benchmark.tables import MVTEC_AD, figures, markdown
from jobs.cli import main
from jobs.cli.benchmark import METHODS as OFFERED
from jobs.drawing import draw_dataset
from jobs.fitting.datasets import DatasetError
from model import FitOptions
from model.network.student import Method


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    draw_dataset(folder, "flange", train=20, good=4, defective=4, size=96)
    return folder


def test_mvtec_ad_is_recognised_as_a_folder_of_categories_and_as_one(drawn: Path) -> None:
    (category,) = categories(drawn)
    assert category == categories(drawn / "flange")[0]
    assert category.name == "flange"
    assert len(category.train) == 20
    defective = [image for image in category.test if image.kind != "good"]
    assert len(defective) == 4
    assert all(len(image.masks) == 1 and image.masks[0].is_file() for image in defective)
    assert all(image.masks == () for image in category.test if image.kind == "good")


def test_mvtec_ad_2_is_recognised(tmp_path: Path) -> None:
    root = tmp_path / "can"
    for name in ("train/good/a.png", "validation/good/b.png", "test_public/good/c.png", "test_public/bad/d.png"):
        picture(root / name)
    picture(root / "test_public/ground_truth/bad/d_mask.png")
    (category,) = categories(tmp_path)
    assert [path.name for path in category.train] == ["a.png"]
    assert [(image.kind, image.path.name, bool(image.masks)) for image in category.test] == [
        ("bad", "d.png", True),
        ("good", "c.png", False),
    ]


def test_visa_is_recognised_by_its_table(tmp_path: Path) -> None:
    rows = [
        ("candle", "train", "normal", "candle/Data/Images/Normal/0.JPG", ""),
        ("candle", "test", "normal", "candle/Data/Images/Normal/1.JPG", ""),
        ("candle", "test", "anomaly", "candle/Data/Images/Anomaly/2.JPG", "candle/Data/Masks/Anomaly/2.png"),
    ]
    (tmp_path / "split_csv").mkdir()
    with (tmp_path / "split_csv" / "1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])
    (category,) = categories(tmp_path)
    assert category.name == "candle"
    assert [path.name for path in category.train] == ["0.JPG"]
    assert [(image.kind, bool(image.masks)) for image in category.test] == [("good", False), ("anomaly", True)]


def test_a_folder_without_categories_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="train/good"):
        categories(tmp_path)
    with pytest.raises(DatasetError, match="not a folder"):
        categories(tmp_path / "none")
    picture(tmp_path / "cap" / "train" / "good" / "a.png")
    with pytest.raises(DatasetError, match="0 to test"):
        categories(tmp_path)


@pytest.fixture(scope="module")
def plan(drawn: Path) -> Plan:
    options = FitOptions(size=64, steps=2, corruptions=1, batch=8)
    return Plan(tuple(categories(drawn)), ("plain", "knn", "mahalanobis"), (0, 1), options)


def test_every_method_is_measured_with_every_seed_and_a_finished_run_is_not_repeated(
    plan: Plan, tmp_path: Path
) -> None:
    phases: list[str] = []
    results = run_plan(plan, tmp_path, lambda *_: None, lambda phase, *_: phases.append(phase))
    assert {"features", "training", "calibration", "measuring"} <= set(phases)
    for method in plan.methods:
        seeds = results[method]["flange"]
        assert [result.seed for result in seeds] == [0, 1]
        assert all(0 <= result.image_auroc <= 1 and 0 <= (result.aupro or 0) <= 1 for result in seeds)
        assert len(seeds[0].worst) == 8  # four good and four defective ones
    assert results["plain"]["flange"][0].explained_variance
    assert results["mahalanobis"]["flange"][0].worst != results["mahalanobis"]["flange"][1].worst, "one split for all"

    kept = sorted(tmp_path.glob("*.json"))
    assert len(kept) == 6
    kept[0].unlink()
    phases.clear()
    begun: list[str] = []
    again = run_plan(plan, tmp_path, lambda name, *_: begun.append(name), lambda phase, *_: phases.append(phase))
    assert phases.count("measuring") == 1
    assert begun[-1] == "done"
    assert figures(plan, again)["mean"]["image_auroc"] == pytest.approx(figures(plan, results)["mean"]["image_auroc"])

    other = Plan(plan.categories, ("knn",), (0,), plan.options.model_copy(update={"size": 128}))
    phases.clear()
    run_plan(other, tmp_path, lambda *_: None, lambda phase, *_: phases.append(phase))
    assert phases.count("measuring") == 1  # other options, another result

    found = figures(plan, results)
    assert found["config"]["seeds"] == [0, 1]
    assert found["config"]["steps"] == 2
    assert [seed["seed"] for seed in found["categories"]["flange"]["seeds"]] == [0, 1]
    assert set(found["methods"]) == set(plan.methods)
    text = markdown(plan, results)
    assert text.count("| knn |") == 2
    assert "published" not in text


def test_fewer_images_are_others_for_each_seed(drawn: Path) -> None:
    (category,) = categories(drawn)
    images = _Images(category, 64, most=10)
    drawn_by = []
    for seed in (0, 1, 0):
        train, held_out = images.split(seed)
        assert (len(train), len(held_out)) == (5, 5)  # half at most: eight would be held out
        drawn_by.append({frame.pixels.tobytes() for frame in (*train, *held_out)})
    assert drawn_by[0] == drawn_by[2] != drawn_by[1]
    assert sum(map(len, _Images(category, 64).split(0))) == 20


def test_leads_are_paired_by_category_and_seed() -> None:
    base = {field.name: 0.5 for field in fields(Result)}
    base |= {"explained_variance": (0.1, 0.2, 0.3), "level_weights": {"geometry.1": [0.25, 0.75]}, "worst": ()}

    def results(*scores: float) -> list[Result]:
        return [Result(**{**base, "seed": seed, "image_auroc": score}) for seed, score in enumerate(scores)]

    found = {
        "fusion": {"a": results(0.9, 0.8), "b": results(0.7)},
        "plain": {"a": results(0.8, 0.7), "b": results(0.7)},
    }
    lead = difference(found, "fusion", "plain", "image_auroc")
    assert lead is not None
    assert lead.mean == pytest.approx(0.2 / 3)
    assert lead.half_width == pytest.approx(4.303 * np.std([0.1, 0.1, 0.0], ddof=1) / math.sqrt(3))
    assert lead.text() == "+6.67 ± 14.34"


def test_figures_of_another_version_are_set_beside(drawn: Path, tmp_path: Path) -> None:
    arguments = ["benchmark", str(drawn), "-m", "knn", "--seeds", "1", "--size", "64", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "before.json")])
    assert done.exit_code == 0, done.output
    older = json.loads((tmp_path / "before.json").read_text())
    (seed,) = older["methods"]["knn"]["categories"]["flange"]["seeds"]
    seed["image_auroc"] -= 0.25
    del seed["escape_rate_1"]  # as from before there was such a measure
    (tmp_path / "before.json").write_text(json.dumps(older))

    done = CliRunner().invoke(main, [*arguments, "--against", str(tmp_path / "before.json")])
    assert done.exit_code == 0, done.output
    assert "| before: knn | +25.00" in done.output
    assert json.loads((tmp_path / "figures.json").read_text())["leads"]["before: knn"]["image_auroc"]["mean"] == 0.25

    wrong = CliRunner().invoke(main, [*arguments, "--seeds", "2", "--against", str(tmp_path / "before.json")])
    assert wrong.exit_code == 1
    assert "no seed [1] of flange" in wrong.output
    (tmp_path / "before.json").write_text("{}")
    wrong = CliRunner().invoke(main, [*arguments, "--against", str(tmp_path / "before.json")])
    assert wrong.exit_code == 1
    assert "linewatch benchmark --json" in wrong.output


def test_published_figures_stand_beside_mvtec_ad_only() -> None:
    assert len(MVTEC_AD) == 15


def test_the_command_offers_every_method() -> None:
    assert OFFERED == METHODS
    assert set(get_args(Method)) < set(METHODS)


def test_a_share_of_nothing_is_not_a_number() -> None:
    assert math.isnan(_share([], "OK"))
    assert _share(["OK", "NotOK"], "OK") == 0.5


def test_the_ablation_has_a_row_for_every_method_and_a_picture(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind one or two: each of the students is tried in tests/model/network/test_student.py."""
    some = ("fusion", "plain", "straight", "largest_z", "with_student", "knn", "mahalanobis", "positional_2")
    assert set(some) <= set(METHODS)
    monkeypatch.setattr(import_module("jobs.cli.benchmark"), "METHODS", some)
    arguments = ["--steps", "1", "--seeds", "1", "--size", "64", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, ["ablate", str(drawn), *arguments])
    assert done.exit_code == 0, done.output
    for method in some:
        assert f"| {method} |" in done.output
    with Image.open(tmp_path / "level-weights.png") as image:
        assert image.width > 600
    assert set(json.loads((tmp_path / "ablation.json").read_text())["leads"]) == set(some) - {"fusion"}


def test_the_command_writes_figures_and_a_table(drawn: Path, tmp_path: Path) -> None:
    arguments = ["benchmark", str(drawn), "-m", "mahalanobis", "--seeds", "1", "--size", "64", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "f.json")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "f.json").read_text())["mean"]["image_auroc"] is not None
    assert "| mahalanobis |" in (tmp_path / "table.md").read_text()
    page = (tmp_path / "worst.html").read_text()
    assert page.count("<figure") == 8
    assert "http" not in page.replace("http-equiv", "")
    wrong = CliRunner().invoke(main, [*arguments, "-c", "bottle"])
    assert wrong.exit_code == 1
    assert "flange" in wrong.output


def test_a_fit_by_two_processes_is_of_all_images(drawn: Path, tmp_path: Path) -> None:
    """And is refused beside methods that know of none."""
    arguments = ["benchmark", str(drawn), "--seeds", "1", "--size", "64", "--steps", "4", "--workers", "2"]
    refused = CliRunner().invoke(main, [*arguments, "-m", "knn"])
    assert refused.exit_code == 2
    assert "knn: sees whole images as they are: leave out --workers" in refused.output
    one, two = (
        run_plan(
            Plan(tuple(categories(drawn)), ("fusion",), (0,), FitOptions(size=64, steps=4, workers=workers)),
            tmp_path / str(workers),
            lambda *_: None,
            lambda *_: None,
        )["fusion"]["flange"][0]
        for workers in (1, 2)
    )
    assert two.final_loss == pytest.approx(one.final_loss, rel=0.2)
    assert two.image_auroc == pytest.approx(one.image_auroc, abs=0.2)
