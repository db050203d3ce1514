"""Small models for the tests: 64 px, few steps, drawn images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model import Fit, FitOptions, Frame, ModelBundle
from model.images.tolerance import NOTHING

SIZE = 64
DATA = Path(__file__).parents[2].parent / "shared" / "data"


def _drawn_frame(seed: int, size: int = SIZE, width: int = 320, height: int = 240) -> Frame:
    """A gray disc on a dark ground, with noise: a good part."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    disc = (y - size / 2) ** 2 + (x - size / 2) ** 2 < (size / 3) ** 2
    pixels = np.where(disc, 170, 50)[..., None] + rng.normal(0, 6, (size, size, 3))
    return Frame(np.clip(pixels, 0, 255).astype(np.uint8), width, height)


def _small_options(**changes: object) -> FitOptions:
    """Tolerating nothing: what is scored is then what was calibrated on."""
    return FitOptions.model_validate({"size": SIZE, "steps": 3, "batch": 8, "tolerate": NOTHING, **changes})


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much where other work wants the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def drawn_frame() -> Callable[..., Frame]:
    return _drawn_frame


@pytest.fixture(scope="session")
def small_options() -> Callable[..., FitOptions]:
    return _small_options


@pytest.fixture(scope="session")
def good_frames() -> list[Frame]:
    return [_drawn_frame(seed) for seed in range(24)]


@pytest.fixture(scope="session")
def bundle(good_frames: list[Frame]) -> ModelBundle:
    return Fit("disc", good_frames[:16], good_frames[16:], _small_options()).run()


@pytest.fixture(scope="session")
def other_bundle(good_frames: list[Frame]) -> ModelBundle:
    return Fit("other disc", good_frames[:16], good_frames[16:], _small_options(seed=7, method="plain")).run()


@pytest.fixture
def photographs() -> Path:
    """The folder of real photographs, absent on a user's machine."""
    if not DATA.is_dir():
        pytest.skip("real photographs are kept beside the repository, in ../shared/data, and are not here")
    return DATA
