"""Versions are written once; the champion changes by compare-and-swap alone."""

import json
from datetime import UTC, datetime
from functools import partial

import pytest

from model import BundleError, ModelBundle
from pipeline.contracts.names import version_name
from pipeline.errors import NameRefused, ObjectConflict, RegistryError, UnknownProduct, UnknownVersion
from pipeline.fakes import MemoryStore
from pipeline.storage.registry import Registry, new_version
from tests.pipeline.tiny import publish, stamped
from tests.threads import together

NOWHERE = "20200101T000000Z-00000000"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    return Registry(store)


def test_a_published_version_comes_back_the_same(registry: Registry, store: MemoryStore, tiny_bundle) -> None:
    bundle = stamped(tiny_bundle)
    registry.publish(bundle)
    back = registry.bundle("bottle", bundle.manifest.version)
    assert back == bundle
    assert registry.manifest("bottle", bundle.manifest.version) == bundle.manifest
    assert set(store.objects) == {
        f"models/bottle/{bundle.manifest.version}/{name}" for name in ("weights.safetensors", "manifest.json")
    }


def test_a_version_is_written_once_and_a_second_try_leaves_it_whole(registry: Registry, tiny_bundle) -> None:
    bundle = stamped(tiny_bundle)
    registry.publish(bundle)
    with pytest.raises(RegistryError, match="already"):
        registry.publish(ModelBundle(bundle.manifest, b"other weights"))
    assert registry.bundle("bottle", bundle.manifest.version) == bundle


def test_a_publish_that_broke_off_is_no_version_and_can_be_done_again(registry, store, tiny_bundle) -> None:
    bundle = stamped(tiny_bundle)
    store.objects[f"models/bottle/{bundle.manifest.version}/weights.safetensors"] = bundle.weights
    assert registry.versions("bottle") == []
    registry.publish(bundle)
    assert registry.versions("bottle") == [bundle.manifest.version]


def test_damaged_weights_are_noticed(registry: Registry, store: MemoryStore, tiny_bundle) -> None:
    version = publish(store, tiny_bundle)
    store.objects[f"models/bottle/{version}/weights.safetensors"] = tiny_bundle.weights[:-1]
    with pytest.raises(BundleError, match="sha256"):
        registry.bundle("bottle", version)


def test_a_damaged_manifest_is_noticed(registry: Registry, store: MemoryStore, tiny_bundle) -> None:
    version = publish(store, tiny_bundle)
    store.objects[f"models/bottle/{version}/manifest.json"] = b'{"product": 5}'
    with pytest.raises(RegistryError, match="damaged") as caught:
        registry.manifest("bottle", version)
    assert "\n" not in str(caught.value)


def test_products_and_versions_are_listed_in_order(registry: Registry, store: MemoryStore, tiny_bundle) -> None:
    assert registry.products() == []
    versions = [publish(store, tiny_bundle, "cap") for _ in range(3)]
    publish(store, tiny_bundle, "bottle")
    store.objects["models/cap/not-a-version/manifest.json"] = b"{}"
    assert registry.products() == ["bottle", "cap"]
    assert registry.versions("cap") == versions
    assert registry.versions("nothing") == []


def test_unknown_products_and_versions_say_what_to_do(registry: Registry) -> None:
    with pytest.raises(UnknownProduct, match="linewatch fit cap"):
        registry.champion("cap")
    assert registry.champion_or_none("cap") is None
    for ask in (registry.bundle, registry.manifest):
        with pytest.raises(UnknownVersion, match="linewatch models list cap"):
            ask("cap", NOWHERE)
    with pytest.raises(UnknownVersion):
        registry.promote("cap", NOWHERE, None)


@pytest.mark.parametrize("name", ["../cap", "cap\n", "cap/x", ""])
def test_a_name_that_could_leave_its_folder_is_refused(registry: Registry, store: MemoryStore, name: str) -> None:
    for ask in (registry.champion, registry.versions, lambda n: registry.bundle(n, NOWHERE)):
        with pytest.raises(NameRefused):
            ask(name)
    with pytest.raises(NameRefused):
        registry.manifest("cap", f"{NOWHERE}{name}/..")
    assert store.objects == {}


def test_promotion_remembers_who_served_before(registry: Registry, store: MemoryStore, tiny_bundle) -> None:
    first, second, third = (publish(store, tiny_bundle) for _ in range(3))
    champion = registry.champion("bottle").champion
    assert (champion.version, champion.history) == (third, (first, second))


def test_of_two_who_promote_at_once_one_loses(registry: Registry, store: MemoryStore, tiny_bundle) -> None:
    first, *rivals = (publish(store, tiny_bundle, serve=number == 0) for number in range(3))
    seen = registry.champion("bottle")
    assert seen.champion.version == first
    outcomes: list[object] = []

    def race(version: str) -> None:
        try:
            outcomes.append(registry.promote("bottle", version, seen).version)
        except ObjectConflict as error:
            outcomes.append(error)

    together(*(partial(race, version) for version in rivals))
    (conflict,) = [outcome for outcome in outcomes if isinstance(outcome, ObjectConflict)]
    assert "changed by someone else" in str(conflict)
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert registry.champion("bottle").champion.version == winner


def test_of_two_first_promotions_one_loses(registry: Registry, store: MemoryStore, tiny_bundle) -> None:
    first, second = (publish(store, tiny_bundle, serve=False) for _ in range(2))
    registry.promote("bottle", first, None)
    with pytest.raises(ObjectConflict):
        registry.promote("bottle", second, None)


def test_rollback_goes_back_step_by_step_and_then_says_there_is_no_more(registry, store, tiny_bundle) -> None:
    first, second, _ = (publish(store, tiny_bundle) for _ in range(3))
    assert registry.rollback("bottle").version == second
    assert registry.rollback("bottle").version == first
    with pytest.raises(RegistryError, match="no earlier champion"):
        registry.rollback("bottle")
    assert registry.champion("bottle").champion.version == first


@pytest.mark.parametrize("damage", [b"", b"null", b"{}", b"\xff", b'{"product": "bottle", "version": "newest"}'])
def test_a_damaged_alias_is_told_from_a_missing_one(registry, store, tiny_bundle, damage: bytes) -> None:
    publish(store, tiny_bundle)
    store.objects["models/bottle/aliases/champion.json"] = damage
    for ask in (registry.champion, registry.champion_or_none, registry.rollback):
        with pytest.raises(RegistryError, match="damaged") as caught:
            ask("bottle")
        assert not isinstance(caught.value, UnknownProduct)


def test_version_names_sort_by_time() -> None:
    names = [new_version(datetime(2026, 1, day, tzinfo=UTC), "ab" * 32) for day in (1, 2, 12)]
    assert names == sorted(names)
    assert version_name(names[0]) == "20260101T000000Z-abababab"


def test_the_alias_is_plain_json(store: MemoryStore, tiny_bundle) -> None:
    version = publish(store, tiny_bundle)
    alias = json.loads(store.objects["models/bottle/aliases/champion.json"])
    assert alias["version"] == version
