"""What all tests of the jobs share."""

from collections.abc import Iterator

import pytest
import torch

from tests.pipeline.environment import clean_environment

__all__ = ["clean_environment"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much where other work wants the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
