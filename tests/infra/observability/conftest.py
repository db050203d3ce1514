"""promtool and Prometheus, where they were built or are on PATH."""

from collections.abc import Callable

import pytest

from infra.local.program import Missing
from infra.local.prometheus import find_prometheus


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    def path(name: str) -> str:
        found = find_prometheus(name)
        if isinstance(found, Missing):
            pytest.skip(f"{found.why}. {found.how_to_get}")
        return found.binary

    return path
