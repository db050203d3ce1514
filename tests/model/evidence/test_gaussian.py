"""The gaussians of places against dense covariances, and where they must not mind what they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.evidence.gaussian import _RIDGE, MOST_DIMENSIONS, OWN_SHARE, PlaceGaussian
from model.evidence.statistics import PlaceStatistics
from model.teachers import teacher_spec

WIDTH, SIDE, IMAGES = 6, 3, 40


def features(images: int, seed: int, width: int = WIDTH) -> torch.Tensor:
    """Correlated, with another mean and another spread at each place."""
    place = torch.Generator().manual_seed(0)
    mixing = torch.randn(SIDE, SIDE, width, width, generator=place)
    mean = torch.randn(SIDE, SIDE, width, generator=place)
    noise = torch.randn(images, SIDE, SIDE, width, generator=torch.Generator().manual_seed(seed))
    return (torch.einsum("nhwc,hwdc->nhwd", noise, mixing) + mean).permute(0, 3, 1, 2)


def fitted(
    x: torch.Tensor, *, side: int | None = SIDE, directions: int = WIDTH, changes: torch.Tensor | None = None
) -> PlaceGaussian:
    gaussian = PlaceGaussian(x.shape[1], side, directions)
    gaussian.fit(lambda: x.split(7), (lambda: changes.split(5)) if changes is not None else None)
    return gaussian


def dense(good: torch.Tensor, seen: torch.Tensor, changes: torch.Tensor | None = None) -> np.ndarray:
    """Squared Mahalanobis distances under half own, half pooled covariance, over the width: [N, H, W].

    A gaussian's directions are rounded to float16, by 5e-4 at most; its distances are differences.
    """
    x, y = (part.permute(2, 3, 0, 1).double().numpy().reshape(SIDE * SIDE, -1, WIDTH) for part in (good, seen))
    off = x - x.mean(axis=1, keepdims=True)
    own = np.einsum("pnc,pnd->pcd", off, off) / (x.shape[1] - 1)
    pooled = own.mean(axis=0)
    if changes is not None:
        moved = changes.permute(0, 2, 3, 1).reshape(-1, WIDTH).double().numpy()
        pooled = pooled + moved.T @ moved / len(moved)
    pooled = pooled + _RIDGE * pooled.diagonal().mean() * np.eye(WIDTH)
    precision = np.linalg.inv(OWN_SHARE * own + (1 - OWN_SHARE) * pooled)
    new = y - x.mean(axis=1, keepdims=True)
    return np.einsum("pnc,pcd,pnd->np", new, precision, new).reshape(-1, SIDE, SIDE) / WIDTH


def test_with_all_directions_it_is_the_mahalanobis_distance() -> None:
    good, seen = features(IMAGES, 1), features(5, 2)
    assert np.allclose(fitted(good)(seen).numpy(), dense(good, seen), rtol=5e-3)


@pytest.mark.parametrize("side", [SIDE, None])
def test_what_a_tolerated_change_does_is_no_surprise(side: int | None) -> None:
    good, seen = features(IMAGES, 1), features(5, 2)
    along = torch.zeros(1, WIDTH, 1, 1)
    along[:, 2] = 1
    changes = along * torch.randn(30, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) * 4
    strict, bears = fitted(good, side=side), fitted(good, side=side, changes=changes)
    if side:
        assert np.allclose(bears(seen).numpy(), dense(good, seen, changes), rtol=5e-3)
    grown = [float((gaussian(seen + 4 * along) - gaussian(seen)).mean()) for gaussian in (strict, bears)]
    assert grown[1] < 0.5 * grown[0]


def test_with_some_directions_it_stays_near() -> None:
    good, seen = features(IMAGES, 1), features(5, 2)
    found = fitted(good, directions=2)(seen).numpy()
    assert np.corrcoef(found.ravel(), dense(good, seen).ravel())[0, 1] > 0.95


def test_good_images_are_near_one_and_others_far() -> None:
    gaussian = fitted(features(200, 1))
    assert float(gaussian(features(50, 2)).mean()) == pytest.approx(1.0, abs=0.4)
    assert float(gaussian(features(50, 2) + 6).mean()) > 3


def test_directions_are_exact_in_float16_as_which_they_are_stored() -> None:
    directions = fitted(features(IMAGES, 1), directions=4).get_buffer("directions")
    assert directions.abs().max() > 0.1
    assert torch.equal(directions.half().float(), directions)


def test_without_directions_it_is_the_pooled_covariance_about_each_places_mean() -> None:
    good, seen = features(IMAGES, 1), features(5, 2)
    x, y = (part.permute(2, 3, 0, 1).double().numpy().reshape(SIDE * SIDE, -1, WIDTH) for part in (good, seen))
    off, new = x - x.mean(axis=1, keepdims=True), y - x.mean(axis=1, keepdims=True)
    pooled = np.einsum("pnc,pnd->cd", off, off) / (SIDE * SIDE * (IMAGES - 1))
    pooled = pooled + _RIDGE * pooled.diagonal().mean() * np.eye(WIDTH)
    expected = np.einsum("pnc,cd,pnd->np", new, np.linalg.inv(pooled), new).reshape(-1, SIDE, SIDE) / WIDTH
    assert np.allclose(fitted(good, directions=0)(seen).numpy(), expected, rtol=1e-3)


def test_of_tiles_any_place_is_any_other() -> None:
    gaussian = fitted(features(IMAGES, 1), side=None)
    seen = features(2, 2)
    assert torch.allclose(gaussian(seen.flip(2, 3)), gaussian(seen).flip(1, 2), rtol=1e-4)
    assert gaussian.get_buffer("mean").shape == (1, WIDTH)
    assert gaussian.get_buffer("directions").numel() == 0


@pytest.mark.parametrize("images", [1, 2, 4])
def test_few_images_or_equal_ones_give_finite_distances(images: int) -> None:
    for good in (
        features(images, 1),
        features(1, 1).expand(images, -1, -1, -1),
        torch.zeros(images, WIDTH, SIDE, SIDE),
    ):
        found = fitted(good)(features(3, 2))
        assert torch.isfinite(found).all()
        assert (found >= -1e-3).all()


def test_wide_features_are_projected_and_alike_each_time() -> None:
    good = features(20, 1, width=MOST_DIMENSIONS + 40)
    one, other = fitted(good, directions=8), fitted(good, directions=8)
    assert one.get_buffer("whitening").shape[:2] == (MOST_DIMENSIONS, MOST_DIMENSIONS + 40)
    assert torch.equal(one(good), other(good))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("size", [64, 96, 256])
def test_maps_have_the_detectors_resolution_for_every_teacher_and_size(name: str, size: int) -> None:
    spec = teacher_spec(name)
    levels = [torch.randn(3, w, size // s, size // s) for w, s in zip(spec.all_widths, spec.all_strides, strict=True)]
    statistics = PlaceStatistics(spec, size, tiled=False)
    statistics.fit(lambda: [levels])
    assert statistics(levels).shape == (3, 3, size // 4, size // 4)
