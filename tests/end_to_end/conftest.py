"""Plants are dear (servers, Ray, fits, replicas): each is started once, and only one stands at a time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.local.apache_kafka import find_apache
from infra.local.program import Missing
from tests.end_to_end.plant import Plant, drawn, plant, start_up


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Ray warns about its own settings in the process that starts it; in its tests a warning is no error.
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("images"))


class Plants:
    """Starts the plant that is asked for, and ends the one before it: Ray is one a process."""

    def __init__(self, new_folder: Callable[[str], Path], images: Path) -> None:
        self._new_folder, self._images = new_folder, images
        self._stack = ExitStack()
        self._kind = ""
        self._plant: Plant | None = None

    def get(self, kind: str) -> Plant:
        if self._kind != kind or self._plant is None:
            self.close()
            self._plant = self._stack.enter_context(plant(self._new_folder(kind), self._images, kafka=kind))
            self._kind = kind
            start_up(self._plant)
        return self._plant

    def close(self) -> None:
        self._plant, self._kind = None, ""
        self._stack.close()


@pytest.fixture(scope="session")
def plants(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Plants]:
    made = Plants(tmp_path_factory.mktemp, images)
    yield made
    made.close()


@pytest.fixture
def apache_plant(plants: Plants) -> Plant:
    found = find_apache()
    if isinstance(found, Missing):
        pytest.skip(f"Apache Kafka: {found.why}. {found.how_to_get}")
    return plants.get("apache")


@pytest.fixture
def tansu_plant(plants: Plants) -> Plant:
    return plants.get("tansu")
