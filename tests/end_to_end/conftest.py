"""The plant is dear (servers, Ray, fits, replicas): it is started once, and ended before another one begins."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.local.apache_kafka import find_apache
from infra.local.program import Missing
from tests.end_to_end.plant import Plant, drawn, plant, start_up


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Ray warns about its own settings in the process that starts it; in its tests a warning is no error.
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))
        if item.path.name.startswith("test_apache_"):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("images"))


def skip_without_apache() -> None:
    if isinstance(found := find_apache(), Missing):
        pytest.skip(f"Apache Kafka: {found.why}. {found.how_to_get}")


class Plants:
    """At most one plant stands: Ray is one a process, and two would share the machine."""

    def __init__(self, new_folder: Callable[[], Path], images: Path) -> None:
        self._new_folder, self._images = new_folder, images
        self._stack = ExitStack()
        self._apache: Plant | None = None

    def apache(self) -> Plant:
        """On Apache Kafka, with both products fitted by Ray Train."""
        skip_without_apache()
        if self._apache is None:
            self._apache = self._stack.enter_context(plant(self._new_folder(), self._images, kafka="apache"))
            start_up(self._apache)
        return self._apache

    def close(self) -> None:
        self._apache = None
        self._stack.close()


@pytest.fixture(scope="session")
def plants(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Plants]:
    made = Plants(lambda: tmp_path_factory.mktemp("plant"), images)
    yield made
    made.close()


@pytest.fixture
def apache_plant(plants: Plants) -> Plant:
    return plants.apache()
