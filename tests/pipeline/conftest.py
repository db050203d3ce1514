import pytest

from model import ModelBundle
from pipeline.fakes import MemoryStore
from tests.conftest import Plant
from tests.pipeline.environment import clean_environment
from tests.pipeline.line import Line, settings
from tests.pipeline.tiny import publish

__all__ = ["clean_environment"]


@pytest.fixture(scope="module")
def objects(tiny_bundle: ModelBundle) -> dict[str, bytes]:
    store = MemoryStore()
    publish(store, tiny_bundle)
    return store.objects


@pytest.fixture
def line(objects: dict[str, bytes]) -> Line:
    return Line(MemoryStore(objects=dict(objects)), settings())


@pytest.fixture
def plant(request: pytest.FixtureRequest) -> Plant:
    """Of the kind that the test is parametrised with (tests.pipeline.brokers)."""
    found: Plant = request.getfixturevalue(request.param)
    return found
