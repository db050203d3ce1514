from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from model import average_precision, f1_max, image_auroc, pixel_auroc
from model.measures.metrics import spearman

scored_images = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=80).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@settings(deadline=None)
@given(scored_images)
def test_image_metrics_equal_scikit_learn_with_ties(rows: list[tuple[int, bool]]) -> None:
    scores, labels = [float(score) for score, _ in rows], [int(label) for _, label in rows]
    assert image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert f1_max(scores, labels) == pytest.approx(f1.max(), abs=1e-9)


def test_one_class_is_undefined() -> None:
    assert math.isnan(image_auroc([1.0, 2.0], [0, 0]))
    assert math.isnan(image_auroc([1.0, 2.0], [1, 1]))
    assert math.isnan(average_precision([1.0, 2.0], [0, 0]))
    assert math.isnan(f1_max([1.0, 2.0], [0, 0]))
    assert f1_max([1.0, 1.0], [0, 1]) == pytest.approx(2 / 3)  # constant scores: flag everything
    assert math.isnan(image_auroc([], []))
    assert math.isnan(pixel_auroc([], []))
    assert math.isnan(pixel_auroc([np.ones((4, 4))], [np.zeros((4, 4))]))


@pytest.mark.parametrize("outlier", [1.0, 1e6])
def test_pooled_pixels_equal_scikit_learn_however_far_one_of_them_is_out(outlier: float) -> None:
    rng = np.random.default_rng(1)
    masks = [rng.random((256, 256)) < 0.05 for _ in range(4)]
    maps = [np.exp(rng.normal(mask * 1.0, 1.0)).astype(np.float32).round(2) for mask in masks]  # with many ties
    maps[0][0, 0] = outlier
    expected = roc_auc_score(np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps]))
    assert pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-9)


def test_images_of_several_sizes_are_pooled() -> None:
    rng = np.random.default_rng(3)
    maps = [rng.random(shape) for shape in ((4, 6), (9, 2))]
    masks = [rng.random(anomaly.shape) < 0.4 for anomaly in maps]
    expected = roc_auc_score(np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps]))
    assert pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-9)


def test_constant_scores_tell_nothing() -> None:
    labels = [0, 1, 0, 1, 1]
    assert image_auroc([3.0] * 5, labels) == 0.5
    assert average_precision([3.0] * 5, labels) == pytest.approx(3 / 5)  # the share of defective images
    assert f1_max([3.0] * 5, labels) == pytest.approx(2 * 3 / (5 + 3))  # flag everything
    mask = np.eye(5, dtype=bool)
    assert pixel_auroc([np.ones((5, 5))], [mask]) == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_image_has_no_auroc(label: int) -> None:
    assert math.isnan(image_auroc([1.0], [label]))
    expected = 1.0 if label else math.nan
    assert average_precision([1.0], [label]) == pytest.approx(expected, nan_ok=True)
    assert f1_max([1.0], [label]) == pytest.approx(expected, nan_ok=True)


def test_masks_of_0_and_255_and_of_booleans_mean_the_same() -> None:
    rng = np.random.default_rng(2)
    maps, mask = [rng.random((8, 8))], rng.random((8, 8)) < 0.3
    assert pixel_auroc(maps, [mask]) == pixel_auroc(maps, [mask.astype(np.uint8) * 255])


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="one label per score"):
        image_auroc([1.0], [0, 1])
    with pytest.raises(ValueError, match="nan or infinite"):
        image_auroc([1.0, math.nan], [0, 1])
    with pytest.raises(ValueError, match="one mask per map"):
        pixel_auroc([np.ones((2, 2))], [])
    with pytest.raises(ValueError, match="map 0 holds nan"):
        pixel_auroc([np.full((2, 2), math.inf)], [np.ones((2, 2))])
    with pytest.raises(ValueError, match="differ"):
        pixel_auroc([np.ones((2, 2))], [np.ones((2, 3))])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=40))
def test_rank_correlation_equals_scipys_with_ties(pairs: list[tuple[int, int]]) -> None:
    one, other = zip(*pairs, strict=True)
    if len(set(one)) > 1 and len(set(other)) > 1:
        assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-9)
    else:
        assert math.isnan(spearman(one, other))
