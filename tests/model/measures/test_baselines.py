"""Methods that train nothing: what is like the good images is near, what is not is far, and a seed decides the bank."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from model.measures.baselines import Baseline, baseline
from model.teachers.efficientnet_lite import LITE0


def levels(batch: int, seed: int, spoiled: bool = False) -> list[torch.Tensor]:
    """Random levels at 128 px; a spoiled one has another direction in its upper left quarter."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for width, stride in zip(LITE0.all_widths, LITE0.all_strides, strict=True):
        side = 128 // stride
        x = torch.randn(batch, width, side, side, generator=generator) + 4.0
        if spoiled:
            x[:, : width // 2, : side // 2, : side // 2] -= 8.0
        found.append(x)
    return found


@pytest.mark.parametrize("name", get_args(Baseline))
def test_a_spoiled_quarter_stands_out(name: Baseline) -> None:
    method = baseline(name, LITE0, 128, seed=0)
    method.fit([levels(8, seed) for seed in range(3)])
    good, spoiled = method.maps(levels(4, 9)), method.maps(levels(4, 9, spoiled=True))
    assert good.shape == (4, 32, 32)
    assert float(spoiled.amax(dim=(1, 2)).min()) > 1.5 * float(good.amax(dim=(1, 2)).max())
    row, column = divmod(int(spoiled[0].argmax()), 32)
    assert max(row, column) < 16


def test_the_seed_decides_the_bank_and_the_null_model_draws_nothing() -> None:
    maps = {}
    for name in ("knn", "mahalanobis"):
        for seed in (0, 1):
            method = baseline(name, LITE0, 128, seed)
            method.fit([levels(80, 1), levels(80, 2), levels(80, 3)])  # 15,360 patches, the bank keeps 15,000
            maps[name, seed] = method.maps(levels(2, 9))
    assert not torch.equal(maps["knn", 0], maps["knn", 1])
    assert torch.equal(maps["mahalanobis", 0], maps["mahalanobis", 1])
