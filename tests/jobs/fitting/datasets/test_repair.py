"""A product whose images can't be read is made usable again, and what is lost is said."""

import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.fitting.datasets import DatasetError, Datasets, Snapshot
from jobs.fitting.datasets.repair import Repairs
from model import ImageLimits
from pipeline.errors import NameRefused
from pipeline.fakes import MemoryStore
from tests.pipeline.tiny import texture


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def bring(store: MemoryStore, *seeds: int) -> Snapshot:
    folder = Path("-".join(map(str, seeds)))
    folder.mkdir()
    for seed in seeds:
        (folder / f"{seed:03d}.png").write_bytes(texture(seed))
    return Datasets(store).ingest(folder, "bottle", limits=ImageLimits()).snapshot


def key(snapshot: Snapshot) -> str:
    return f"datasets/bottle/snapshots/{snapshot.digest}.json"


def test_a_whole_product_is_left_as_it_is(store: MemoryStore) -> None:
    snapshot = bring(store, 1, 2)
    objects = dict(store.objects)
    done = Repairs(store).repair("bottle")
    assert (done.changed, done.lost, done.trouble, done.snapshot) == (False, [], None, snapshot)
    assert store.objects == objects


def test_a_name_that_is_no_utf_8_costs_nothing(store: MemoryStore) -> None:
    """As they were written once: readable as JSON, and by nothing that wants text."""
    snapshot = bring(store, 1, 2)
    values = json.loads(snapshot.text())
    values["good"][0]["name"] = "pr\udcfcfung.png"
    text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest()
    store.put(f"datasets/bottle/snapshots/{digest}.json", text)
    store.put("datasets/bottle/latest.json", json.dumps({"digest": digest}).encode())
    with pytest.raises(DatasetError, match="'linewatch datasets repair bottle'"):
        Datasets(store).latest("bottle")
    done = Repairs(store).repair("bottle")
    assert (done.changed, done.lost) == (True, [])
    latest = Datasets(store).latest("bottle")
    assert latest == done.snapshot
    assert {item.sha256 for item in latest.good} == {item.sha256 for item in snapshot.good}
    assert "pr\\xfcfung.png" in {item.name for item in latest.good}


@pytest.mark.parametrize("damage", ["pointer", "pointer gone", "cut off", "edited", "gone"])
def test_the_newest_readable_snapshot_takes_the_place_of_a_damaged_one(store: MemoryStore, damage: str) -> None:
    first, second, last = bring(store, 1, 2), bring(store, 3, 4), bring(store, 5, 6)
    if damage == "pointer":
        store.put("datasets/bottle/latest.json", b"{}")
    elif damage == "pointer gone":
        del store.objects["datasets/bottle/latest.json"]
    elif damage == "cut off":
        store.objects[key(last)] = last.text()[:-20]
    elif damage == "edited":
        store.objects[key(last)] = second.text()
    else:
        del store.objects[key(last)]
    done = Repairs(store).repair("bottle")
    assert done.snapshot == (last if damage.startswith("pointer") else second) != first
    assert done.trouble
    assert "ingest it again" in done.lost[0]
    assert Datasets(store).latest("bottle") == done.snapshot


def test_a_snapshot_that_the_gate_refused_is_the_last_resort(store: MemoryStore) -> None:
    first, refused = bring(store, 1, 2), bring(store, 3, 4)
    Datasets(store).refuse(refused, ["spoiled"])
    store.put("datasets/bottle/latest.json", b"{}")
    assert Repairs(store).repair("bottle").snapshot == first
    del store.objects[key(first)]
    store.put("datasets/bottle/latest.json", b"{}")
    assert Repairs(store).repair("bottle").snapshot == refused


def test_the_newest_is_so_by_its_date(store: MemoryStore) -> None:
    first, second = bring(store, 1, 2), bring(store, 3, 4)
    store.times[key(first)] = store.times[key(second)] + timedelta(seconds=5)
    assert [one.digest for one in Repairs(store).snapshots("bottle")] == [first.digest, second.digest]
    store.times[key(first)] = store.times[key(second)]  # within one second the larger: ingests only add
    assert [one.digest for one in Repairs(store).snapshots("bottle")] == [second.digest, first.digest]


def test_images_that_are_gone_or_damaged_are_taken_off_the_list_by_name(store: MemoryStore) -> None:
    snapshot = bring(store, 1, 2, 3)
    by_name = {item.name: item for item in snapshot.good}
    del store.objects[f"datasets/bottle/images/{by_name['001.png'].sha256}"]
    store.objects[f"datasets/bottle/images/{by_name['002.png'].sha256}"] += b"!"
    done = Repairs(store).repair("bottle")
    assert [item.name for item in done.snapshot.good] == ["003.png"]
    assert sorted(line[:7] for line in done.lost) == ["001.png", "002.png"]
    assert all("linewatch" not in line for line in done.lost), "this is the repair already"
    assert Datasets(store).ingest(Path("1-2-3"), "bottle", limits=ImageLimits()).added == 2, "another ingest mends it"
    assert Repairs(store).repair("bottle").changed is False


def test_what_cannot_be_mended_is_one_line(store: MemoryStore) -> None:
    with pytest.raises(DatasetError, match="bring some with"):
        Repairs(store).repair("bottle")
    with pytest.raises(NameRefused):
        Repairs(store).repair("../bottle")
    snapshot = bring(store, 1)
    store.objects[key(snapshot)] = b"{}"
    with pytest.raises(DatasetError, match="ingest its images again"):
        Repairs(store).repair("bottle")
    store.objects[key(snapshot)] = snapshot.text()
    del store.objects[f"datasets/bottle/images/{snapshot.good[0].sha256}"]
    with pytest.raises(DatasetError, match="no good image of bottle is left"):
        Repairs(store).repair("bottle")


def test_an_ingest_meanwhile_is_not_overwritten(store: MemoryStore) -> None:
    snapshot = bring(store, 1, 2)
    del store.objects[f"datasets/bottle/images/{snapshot.good[0].sha256}"]
    with pytest.raises(DatasetError, match="meanwhile"):
        Repairs(store).repair("bottle", lambda done, _: bring(store, 3, 4) and None if done == 1 else None)
    assert len(Datasets(store).latest("bottle").good) == 4
