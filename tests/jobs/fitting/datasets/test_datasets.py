"""Images under their own hash, snapshots that nobody changes, and files that can't be read left out by name."""

import json
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from jobs.fitting.datasets import DatasetError, Datasets, Item, Snapshot, discover
from jobs.fitting.datasets.folders import DANGLING
from jobs.fitting.datasets.masks import encoded, read_mask
from model import ImageLimits
from pipeline.errors import NameRefused, ObjectConflict
from pipeline.fakes import MemoryStore
from tests.pipeline.tiny import SIDE, texture
from tests.threads import together

LIMITS = ImageLimits()
MARKED = np.zeros((SIDE, SIDE), bool)
MARKED[30:60, 30:60] = True


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def datasets(store: MemoryStore) -> Datasets:
    return Datasets(store)


def folder(name: str, *seeds: int) -> Path:
    """A flat folder of good images."""
    path = Path(name)
    path.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (path / f"{seed:03d}.png").write_bytes(texture(seed))
    return path


def mvtec(name: str = "category") -> Path:
    """Five good ones to fit on; two good and two scratched ones to judge by, one of them with a mask."""
    root = Path(name)
    folder(f"{name}/train/good", 1, 2, 3, 4, 5)
    folder(f"{name}/test/good", 10, 11)
    folder(f"{name}/test/scratch", 20, 21)
    masks = root / "ground_truth" / "scratch"
    masks.mkdir(parents=True)
    (masks / "020_mask.png").write_bytes(encoded(MARKED))
    return root


def test_a_flat_folder_brings_good_images(datasets: Datasets, store: MemoryStore) -> None:
    report = datasets.ingest(folder("good", 1, 2, 3), "bottle", limits=LIMITS)
    assert (report.added, report.known, report.refused) == (3, 0, [])
    assert len(report.snapshot.good) == 3
    assert report.snapshot.labelled == ()
    assert datasets.latest("bottle") == report.snapshot
    for item in report.snapshot.good:
        assert store.objects[f"datasets/bottle/images/{item.sha256}"] == texture(int(item.name[:3]))


def test_an_mvtec_folder_brings_labelled_images_with_their_masks(datasets: Datasets) -> None:
    snapshot = datasets.ingest(mvtec(), "bottle", limits=LIMITS).snapshot
    assert sorted(item.name for item in snapshot.good) == [f"00{number}.png" for number in (1, 2, 3, 4, 5)]
    assert sorted((item.kind, item.name) for item in snapshot.labelled) == [
        ("good", "010.png"),
        ("good", "011.png"),
        ("scratch", "020.png"),
        ("scratch", "021.png"),
    ]
    masks = {item.name: datasets.mask("bottle", item) for item in snapshot.labelled}
    assert read_mask(masks["020.png"] or b"").tolist() == MARKED.tolist()
    assert masks["021.png"] is None


def test_subfolders_and_every_accepted_suffix_are_found_in_a_fixed_order() -> None:
    root = folder("good/deep/er", 1)
    (root / "UPPER.JPG").write_bytes(b"x")
    (root / "notes.txt").write_text("not an image")
    (root / "folder.png").mkdir()
    assert [file.path.name for file in discover(Path("good"))] == ["001.png", "UPPER.JPG"]


def test_a_folder_one_level_too_high_is_refused(datasets: Datasets) -> None:
    """Its defective images and masks would be fitted on as good ones."""
    mvtec("plant/category")
    with pytest.raises(DatasetError, match=r"ingest plant/category"):
        datasets.ingest(Path("plant"), "flange", limits=LIMITS)


def test_bad_files_are_reported_and_the_rest_is_taken(datasets: Datasets) -> None:
    root = folder("good", 1, 2)
    (root / "broken.png").write_bytes(texture(3)[:400])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.png").write_text("no image")
    (root / "gone.png").symlink_to("nowhere.png")
    report = datasets.ingest(root, "bottle", limits=LIMITS)
    assert report.added == 2
    assert sorted(path.name for path, _ in report.refused) == ["broken.png", "empty.jpg", "text.png"]
    assert report.left_out[DANGLING] == [root / "gone.png"]
    assert all(reason for _, reason in report.refused)


def test_a_further_check_refuses_with_its_reason(datasets: Datasets) -> None:
    report = datasets.ingest(
        folder("good", 1, 2), "bottle", limits=LIMITS, accept=lambda data: "dark" if data == texture(1) else None
    )
    assert report.refused == [(Path("good/001.png"), "dark")]


@pytest.mark.parametrize("what", ["missing", "file", "empty", "only text", "all broken"])
def test_a_folder_without_a_usable_image_is_one_clear_line(datasets: Datasets, store: MemoryStore, what: str) -> None:
    path = Path("given")
    if what == "file":
        path.write_text("x")
    elif what != "missing":
        path.mkdir()
        if what != "empty":
            (path / ("a.txt" if what == "only text" else "a.png")).write_text("x")
    with pytest.raises(DatasetError, match="given") as caught:
        datasets.ingest(path, "bottle", limits=LIMITS)
    assert "\n" not in str(caught.value)
    assert store.objects == {}


def test_a_wrong_product_name_is_refused_before_anything_is_read(datasets: Datasets, store: MemoryStore) -> None:
    with pytest.raises(NameRefused):
        datasets.ingest(Path("nowhere"), "../models", limits=LIMITS)
    assert store.objects == {}


def test_the_same_content_is_recognised_under_any_name(datasets: Datasets) -> None:
    first = datasets.ingest(folder("good", 1, 2), "bottle", limits=LIMITS)
    again = folder("again", 3)
    (again / "renamed.png").write_bytes(texture(1))
    second = datasets.ingest(again, "bottle", limits=LIMITS)
    assert (second.added, second.known) == (1, 1)
    assert len(second.snapshot.good) == 3
    assert {item.sha256 for item in first.snapshot.good} < {item.sha256 for item in second.snapshot.good}
    assert datasets.ingest(again, "bottle", limits=LIMITS).snapshot.digest == second.snapshot.digest


def test_the_digest_is_of_the_content_and_not_of_the_way_there(store: MemoryStore) -> None:
    once = Datasets(MemoryStore()).ingest(folder("all", 1, 2, 3), "bottle", limits=LIMITS).snapshot
    slowly = Datasets(store)
    slowly.ingest(folder("c", 3), "bottle", limits=LIMITS)
    slowly.ingest(folder("a", 1), "bottle", limits=LIMITS)
    assert slowly.ingest(folder("b", 2), "bottle", limits=LIMITS).snapshot.digest == once.digest
    assert Snapshot.model_validate_json(once.text()).digest == once.digest


def test_what_judges_is_never_fitted_on(datasets: Datasets) -> None:
    root = mvtec()
    (root / "train" / "good" / "copy.png").write_bytes(texture(10))
    snapshot = datasets.ingest(root, "bottle", limits=LIMITS).snapshot
    assert not {item.sha256 for item in snapshot.good} & {item.sha256 for item in snapshot.labelled}
    later = datasets.ingest(folder("flat", 20, 30), "bottle", limits=LIMITS).snapshot
    assert not {item.sha256 for item in later.good} & {item.sha256 for item in later.labelled}
    assert len(later.good) == 6


def test_ingests_at_the_same_time_are_merged(store: MemoryStore) -> None:
    datasets, interrupted = Datasets(store), Datasets(store)
    folder("theirs", 5, 6)

    def meanwhile(done: int, _: int) -> None:
        if done == 2:  # after the other has read what is there
            datasets.ingest(Path("theirs"), "bottle", limits=LIMITS)

    report = interrupted.ingest(folder("ours", 1, 2), "bottle", limits=LIMITS, on_image=meanwhile)
    assert len(report.snapshot.good) == 4
    assert datasets.latest("bottle") == report.snapshot


def test_a_lost_race_for_the_pointer_is_run_again(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put_if, losses = store.put_if, iter([True, True])
    rival = Datasets(MemoryStore(objects=store.objects))
    folder("theirs", 7)

    def racing(key: str, data: bytes, etag: str | None) -> None:
        if next(losses, False):
            rival.ingest(Path("theirs"), "bottle", limits=LIMITS)
            raise ObjectConflict(key)
        put_if(key, data, etag)

    monkeypatch.setattr(store, "put_if", racing)
    report = Datasets(store).ingest(folder("ours", 1), "bottle", limits=LIMITS)
    assert len(report.snapshot.good) == 2


def test_many_ingests_at_once_lose_no_image(store: MemoryStore) -> None:
    lock = threading.Lock()
    put_if = store.put_if

    def locked(key: str, data: bytes, etag: str | None) -> None:
        with lock:
            put_if(key, data, etag)

    store.put_if = locked  # type: ignore[method-assign]
    paths = [folder(f"part{number}", number) for number in range(6)]
    together(*(partial(Datasets(store).ingest, path, "bottle", limits=LIMITS) for path in paths))
    assert len(Datasets(store).latest("bottle").good) == 6


def test_an_earlier_snapshot_can_be_restored(datasets: Datasets) -> None:
    before = datasets.ingest(folder("good", 1, 2), "bottle", limits=LIMITS).snapshot
    spoiled = datasets.ingest(folder("spoiled", 8, 9), "bottle", limits=LIMITS).snapshot
    datasets.restore(before, instead_of=spoiled)
    assert datasets.latest("bottle") == before
    assert datasets.snapshot("bottle", spoiled.digest) == spoiled, "it stays, unlisted"


def test_restoring_leaves_images_alone_that_came_in_the_meantime(datasets: Datasets) -> None:
    before = datasets.ingest(folder("good", 1, 2), "bottle", limits=LIMITS).snapshot
    spoiled = datasets.ingest(folder("spoiled", 8, 9), "bottle", limits=LIMITS).snapshot
    newest = datasets.ingest(folder("more", 20, 21), "bottle", limits=LIMITS).snapshot
    datasets.restore(before, instead_of=spoiled)
    assert datasets.latest("bottle") == newest


def test_a_refusal_of_the_same_images_is_remembered(datasets: Datasets) -> None:
    snapshot = datasets.ingest(folder("good", 1, 2), "bottle", limits=LIMITS).snapshot
    assert datasets.refusal("bottle", snapshot.digest) == []
    datasets.refuse(snapshot, ["too many of them are black"])
    assert datasets.refusal("bottle", snapshot.digest) == ["too many of them are black"]


def test_damage_in_the_store_is_detected(datasets: Datasets, store: MemoryStore) -> None:
    snapshot = datasets.ingest(mvtec(), "bottle", limits=LIMITS).snapshot
    item = snapshot.good[0]
    masked = next(item for item in snapshot.labelled if item.mask_sha256)
    store.objects[f"datasets/bottle/images/{item.sha256}"] += b"!"
    with pytest.raises(DatasetError, match="damaged"):
        datasets.image("bottle", item)
    del store.objects[f"datasets/bottle/images/{item.sha256}"]
    with pytest.raises(DatasetError, match="gone"):
        datasets.image("bottle", item)
    store.objects[f"datasets/bottle/masks/{masked.mask_sha256}"] = b""
    with pytest.raises(DatasetError, match="damaged"):
        datasets.mask("bottle", masked)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"\xff", b'{"digest": 5}'])
def test_a_damaged_pointer_or_snapshot_is_said_so(datasets: Datasets, store: MemoryStore, damage: bytes) -> None:
    digest = datasets.ingest(folder("good", 1), "bottle", limits=LIMITS).snapshot.digest
    kept = dict(store.objects)
    store.objects["datasets/bottle/latest.json"] = damage
    with pytest.raises(DatasetError):
        datasets.latest("bottle")
    with pytest.raises(DatasetError):  # rather than beginning afresh, without the images that are there
        datasets.ingest(folder("more", 2), "bottle", limits=LIMITS)
    store.objects = kept
    store.objects[f"datasets/bottle/snapshots/{digest}.json"] = damage
    with pytest.raises(DatasetError):
        datasets.latest("bottle")


def test_a_snapshot_that_was_edited_is_not_believed(datasets: Datasets, store: MemoryStore) -> None:
    digest = datasets.ingest(folder("good", 1, 2), "bottle", limits=LIMITS).snapshot.digest
    key = f"datasets/bottle/snapshots/{digest}.json"
    edited = json.loads(store.objects[key])
    edited["good"].pop()
    store.objects[key] = json.dumps(edited).encode()
    with pytest.raises(DatasetError, match="not what its digest says"):
        datasets.snapshot("bottle", digest)


def test_no_images_yet_says_how_to_bring_some(datasets: Datasets) -> None:
    with pytest.raises(DatasetError, match="linewatch ingest FOLDER --product bottle"):
        datasets.latest("bottle")
    assert datasets.latest_or_empty("bottle") == Snapshot(product="bottle")
    with pytest.raises(DatasetError, match="no snapshot"):
        datasets.snapshot("bottle", "0" * 64)


def test_an_item_is_good_until_it_is_called_otherwise() -> None:
    assert Item(sha256="0" * 64, name="a.png").kind == "good"
