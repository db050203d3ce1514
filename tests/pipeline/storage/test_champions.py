"""Champions are looked up once, watched, and swapped only for one that can be loaded."""

import time

import pytest

from model import BundleError
from pipeline.errors import ModelBroken, ProductUnknown, StoreUnavailable
from pipeline.fakes import MemoryStore
from pipeline.storage.champions import Champions
from pipeline.storage.registry import Registry
from tests.pipeline.tiny import publish

ALIAS = "models/{}/aliases/champion.json"


class Loads:
    """Stands in for the engine: what was warmed and forgotten, and what can't be loaded."""

    def __init__(self) -> None:
        self.warmed: list[str] = []
        self.forgotten: list[str] = []
        self.broken: set[str] = set()

    def warm(self, key: str) -> None:
        self.warmed.append(key)
        if key in self.broken:
            raise BundleError("damaged")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def loads() -> Loads:
    return Loads()


def champions(store: MemoryStore, loads: Loads, poll_s: float = 60.0) -> Champions:
    return Champions(Registry(store), loads.warm, loads.forgotten.append, poll_s)


def test_a_product_is_looked_up_and_warmed_on_first_use_only(store, loads, tiny_bundle) -> None:
    version = publish(store, tiny_bundle)
    watched = champions(store, loads)
    assert watched.serving() == {}
    assert [watched.version("bottle") for _ in range(3)] == [version] * 3
    assert loads.warmed == [f"bottle/{version}"]
    assert watched.serving() == {"bottle": version}


def test_an_unknown_product_is_asked_for_once_an_interval_and_found_when_it_is_there(store, loads, tiny_bundle) -> None:
    watched = champions(store, loads, poll_s=0.05)
    with pytest.raises(ProductUnknown, match="no champion"):
        watched.version("bottle")
    store.outages = 1  # within the interval the store isn't asked
    with pytest.raises(ProductUnknown):
        watched.version("bottle")
    store.outages = 0
    version = publish(store, tiny_bundle)
    time.sleep(0.06)
    assert watched.version("bottle") == version


def test_a_new_champion_takes_over_and_the_old_one_is_freed(store, loads, tiny_bundle) -> None:
    old = publish(store, tiny_bundle)
    watched = champions(store, loads)
    watched.version("bottle")
    watched.refresh()
    assert loads.forgotten == []
    new = publish(store, tiny_bundle)
    assert watched.version("bottle") == old, "until the next look"
    watched.refresh()
    assert watched.version("bottle") == new
    assert loads.warmed[-1] == f"bottle/{new}"
    assert loads.forgotten == [f"bottle/{old}"]


def test_a_broken_new_version_is_refused_once_and_the_old_one_serves_on(store, loads, tiny_bundle, caplog) -> None:
    old = publish(store, tiny_bundle)
    watched = champions(store, loads)
    watched.version("bottle")
    broken = publish(store, tiny_bundle)
    loads.broken.add(f"bottle/{broken}")
    for _ in range(3):
        watched.refresh()
    assert watched.version("bottle") == old
    assert loads.warmed.count(f"bottle/{broken}") == 1
    assert [record.getMessage() for record in caplog.records if "can't be loaded" in record.getMessage()] != []
    better = publish(store, tiny_bundle)
    watched.refresh()
    assert watched.version("bottle") == better


def test_a_first_champion_that_cannot_be_loaded_is_said_so(store, loads, tiny_bundle) -> None:
    version = publish(store, tiny_bundle)
    loads.broken.add(f"bottle/{version}")
    watched = champions(store, loads, poll_s=0.05)
    with pytest.raises(ModelBroken, match="can't be loaded"):
        watched.version("bottle")
    loads.broken.clear()
    with pytest.raises(ModelBroken):  # not downloaded again for every batch
        watched.version("bottle")
    time.sleep(0.06)
    assert watched.version("bottle") == version


def test_a_damaged_alias_is_the_products_own_trouble(store, loads, tiny_bundle) -> None:
    for product in ("bottle", "cap"):
        publish(store, tiny_bundle, product)
    watched = champions(store, loads)
    before = {product: watched.version(product) for product in ("bottle", "cap")}
    store.objects[ALIAS.format("bottle")] = b"{}"
    new = publish(store, tiny_bundle, "cap")
    watched.refresh()
    assert watched.serving() == {"bottle": before["bottle"], "cap": new}, "the other product's swap did not wait"
    with pytest.raises(ModelBroken, match="damaged"):
        champions(store, loads).version("bottle")


def test_an_alias_to_a_version_that_is_gone_is_refused(store, tiny_bundle) -> None:
    publish(store, tiny_bundle)
    for key in list(store.objects):
        if not key.endswith("champion.json"):
            del store.objects[key]
    real = Champions(Registry(store), lambda key: Registry(store).bundle(*key.split("/")), print, 60.0)
    with pytest.raises(ModelBroken, match="has no version"):
        real.version("bottle")


def test_a_silent_store_is_told_to_whoever_can_wait(store, loads, tiny_bundle) -> None:
    version = publish(store, tiny_bundle)
    watched = champions(store, loads)
    store.outages = 1
    with pytest.raises(StoreUnavailable):
        watched.version("bottle")
    assert watched.version("bottle") == version
    store.outages = 1
    with pytest.raises(StoreUnavailable):
        watched.refresh()
    assert watched.version("bottle") == version, "what serves needs no store"


def test_the_watcher_swaps_by_itself_outlives_an_outage_and_ends(store, loads, tiny_bundle, eventually) -> None:
    publish(store, tiny_bundle)
    watched = champions(store, loads, poll_s=0.02)
    watched.version("bottle")
    watched.watch()
    try:
        store.outages = 2
        eventually(lambda: store.outages == 0)
        new = publish(store, tiny_bundle)
        eventually(lambda: watched.serving()["bottle"] == new)
    finally:
        watched.close()
    assert watched._watcher
    assert not watched._watcher.is_alive()
