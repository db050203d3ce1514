"""What all tests of the jobs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from tests.pipeline.environment import clean_environment

if TYPE_CHECKING:
    from model import ModelBundle
    from tests.jobs.inspected_line import InspectedLine

__all__ = ["clean_environment"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much where other work wants the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def lines() -> dict[str, InspectedLine]:
    return {}


@pytest.fixture
def line(
    request: pytest.FixtureRequest,
    lines: dict[str, InspectedLine],
    tiny_bundle: ModelBundle,
    eventually: Callable[..., None],
) -> InspectedLine:
    """One per broker, which the parameter names. Tests read what it has inspected and leave that as it is."""
    from tests.jobs.inspected_line import inspected_line

    if request.param not in lines:
        lines[request.param] = inspected_line(request.getfixturevalue(request.param), tiny_bundle, eventually)
    return lines[request.param]
