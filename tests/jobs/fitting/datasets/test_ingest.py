"""What an ingest says of a folder, and what a product has afterwards."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jobs.fitting.counts import split_items
from jobs.fitting.datasets import DatasetError, Datasets, IngestReport, Item, Snapshot
from jobs.fitting.datasets.ingest import UNIFORM
from jobs.fitting.datasets.layout import NAMED
from jobs.fitting.datasets.masks import encoded, read_mask
from jobs.fitting.datasets.snapshots import stored_name
from model import ImageLimits, Reading
from pipeline.fakes import MemoryStore
from tests.pipeline.tiny import SIDE, texture

MASK = np.zeros((SIDE, SIDE), bool)
MASK[20:40, 30:60] = True


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def datasets(store: MemoryStore) -> Datasets:
    return Datasets(store)


def ingest(datasets: Datasets, folder: str) -> IngestReport:
    return datasets.ingest(Path(folder), "bottle", limits=ImageLimits())


def put(path: str, data: bytes) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)
    return Path(path)


def resaved(seed: int, path: str, note: str = "") -> Path:
    """The picture of :func:`texture` in another file."""
    put("given.png", texture(seed))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    info.add_text("Note", note or path)
    with Image.open("given.png") as image:
        image.save(path, **({"pnginfo": info} if path.endswith(".png") else {}))
    return Path(path)


def good(*seeds: int, folder: str = "good") -> str:
    for seed in seeds:
        put(f"{folder}/{seed:03d}.png", texture(seed))
    return folder


def category(kind: str = "scratch", mask: bytes | None = None) -> str:
    good(1, 2, 3, folder="bottle/train/good")
    put(f"bottle/test/{kind}/020.png", texture(20, spot=True))
    if mask is not None:
        put(f"bottle/ground_truth/{kind}/020_mask.png", mask)
    return "bottle"


def forgotten(store: MemoryStore, snapshot: Snapshot) -> Snapshot:
    """The snapshot as it was written before pixels were hashed, made the latest one."""
    texts = json.loads(snapshot.text())
    for item in (*texts["good"], *texts["labelled"]):
        for name in ("pixels_sha256", "look", "copies"):
            item.pop(name, None)
    old = Snapshot.model_validate(texts)
    assert "pixels" not in old.text().decode()
    store.put(f"datasets/bottle/snapshots/{old.digest}.json", old.text())
    store.put("datasets/bottle/latest.json", json.dumps({"digest": old.digest}).encode())
    return old


def test_copies_of_a_picture_are_one_picture(datasets: Datasets) -> None:
    good(1, 2)
    resaved(1, "good/again.png")
    resaved(1, "good/other.bmp")
    report = ingest(datasets, "good")
    assert (report.added, report.copies, len(report.snapshot.good)) == (2, 2, 2)
    assert sorted(len(item.copies) for item in report.snapshot.good) == [0, 2]
    again = ingest(datasets, "good")
    assert (again.added, again.known, again.copies, again.snapshot) == (0, 4, 0, report.snapshot)


def test_a_copy_that_comes_later_lies_where_its_picture_lies(datasets: Datasets) -> None:
    before = ingest(datasets, good(*range(1, 21))).snapshot
    for seed in range(1, 21):
        resaved(seed, f"later/{seed}.png")
    report = ingest(datasets, "later")
    assert (report.added, report.copies) == (0, 20)
    assert [item.sha256 for part in split_items(before) for item in part] == [
        item.sha256 for part in split_items(report.snapshot) for item in part
    ]


def test_a_picture_is_held_out_under_whatever_file_it_comes(store: MemoryStore) -> None:
    first = ingest(Datasets(store), good(*range(1, 41))).snapshot
    for seed in range(1, 41):
        resaved(seed, f"resaved/{seed}.png")
    other = ingest(Datasets(MemoryStore()), "resaved").snapshot
    held_out = [{item.pixels_sha256 for item in split_items(snapshot)[1]} for snapshot in (first, other)]
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) >= 8


def test_an_older_snapshot_reads_and_is_split_as_before(datasets: Datasets, store: MemoryStore) -> None:
    old = forgotten(store, ingest(datasets, good(*range(1, 31))).snapshot)
    assert datasets.latest("bottle") == old
    held_out = {item.sha256 for item in split_items(old)[1]}
    ranked = sorted(item.sha256 for item in old.good)
    assert held_out == set(ranked[: len(held_out)])
    assert ingest(datasets, "good").snapshot == old, "nothing new, nothing changed"


def test_copies_of_an_older_snapshots_images_are_recognised_and_those_keep_their_place(
    datasets: Datasets, store: MemoryStore
) -> None:
    old = forgotten(store, ingest(datasets, good(*range(1, 31))).snapshot)
    for seed in range(1, 31):
        resaved(seed, f"later/{seed}.png")
    report = ingest(datasets, "later")
    assert (report.added, report.copies, len(report.snapshot.good)) == (0, 30, 30)
    assert {item.sha256 for item in split_items(report.snapshot)[1]} == {item.sha256 for item in split_items(old)[1]}


def test_a_picture_that_is_good_and_labelled_is_labelled(datasets: Datasets) -> None:
    category()
    resaved(1, "bottle/test/good/copy.png")
    report = ingest(datasets, "bottle")
    assert len(report.snapshot.good) == 2
    assert sorted(item.kind for item in report.snapshot.labelled) == ["good", "scratch"]
    assert any("labelled too" in line for line in report.lines(Path("bottle")))
    put("flat/020.png", texture(20, spot=True))
    put("flat/030.png", texture(30))
    later = ingest(datasets, "flat")
    assert len(later.snapshot.good) == 3
    assert [item.kind for item in later.judging] == ["scratch"]


def test_another_label_or_mask_renews_it(datasets: Datasets) -> None:
    ingest(datasets, category("scratch"))

    def labelled() -> Item:
        (item,) = datasets.latest("bottle").labelled
        return item

    assert labelled().mask_sha256 is None
    assert ingest(datasets, category("scratch", encoded(MASK))).renewed == 1
    assert read_mask(datasets.mask("bottle", labelled()) or b"").tolist() == MASK.tolist()
    assert ingest(datasets, category("scratch", encoded(MASK))).renewed == 0
    assert ingest(datasets, category("scratch", encoded(MASK.T))).renewed == 1
    assert read_mask(datasets.mask("bottle", labelled()) or b"").tolist() == MASK.T.tolist()
    Path("bottle/test/scratch").rename("bottle/test/dent")
    Path("bottle/ground_truth/scratch").rename("bottle/ground_truth/dent")
    assert ingest(datasets, "bottle").renewed == 1
    assert labelled().kind == "dent"
    Path("bottle/test/dent").rename("bottle/test/good")
    assert ingest(datasets, "bottle").renewed == 1
    assert (labelled().kind, labelled().mask_sha256) == ("good", None)


def test_a_mask_stored_in_another_form_that_says_the_same_is_not_another(datasets: Datasets) -> None:
    snapshot = ingest(datasets, category("scratch", encoded(MASK))).snapshot
    Image.fromarray(MASK.astype(np.uint8)).save("raw.png")  # 0 and 1, as it was stored before
    raw = datasets._kept("bottle", "masks", Path("raw.png").read_bytes())
    (item,) = snapshot.labelled
    old = snapshot.model_copy(update={"labelled": (item.model_copy(update={"mask_sha256": raw}),)})
    datasets.write(old)
    datasets.restore(old, instead_of=snapshot)
    assert ingest(datasets, "bottle").snapshot == old


def test_a_picture_with_two_labels_is_refused_by_both_names(datasets: Datasets) -> None:
    category("scratch")
    put("bottle/test/dent/b.png", texture(20, spot=True))
    report = ingest(datasets, "bottle")
    assert report.snapshot.labelled == ()
    assert {path.name: "labelled otherwise" in reason for path, reason in report.refused} == {
        "020.png": True,
        "b.png": True,
    }


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (encoded(MASK[:48, :48]), "has 48 x 48 pixels and the image 96 x 96"),
        (b"\x89PNG broken", "is no image"),
        (encoded(np.zeros_like(MASK)), "marks no pixel"),
        (encoded(np.ones_like(MASK)), "marks every pixel"),
    ],
)
def test_a_mask_that_cannot_be_used_is_told_and_the_image_judges_without(
    datasets: Datasets, mask: bytes, told: str
) -> None:
    report = ingest(datasets, category("scratch", mask))
    ((path, reason),) = report.masks
    assert path.name == "020.png"
    assert told in reason
    (item,) = report.snapshot.labelled
    assert (item.kind, item.mask_sha256) == ("scratch", None)


def test_a_mask_that_marks_nearly_all_is_taken_with_a_doubt_and_one_of_a_good_image_is_not(datasets: Datasets) -> None:
    category("scratch", encoded(~MASK))
    put("bottle/test/good/021.png", texture(21))
    put("bottle/ground_truth/good/021_mask.png", encoded(MASK))
    report = ingest(datasets, "bottle")
    told = {path.name: reason for path, reason in report.masks}
    assert "swapped" in told["020.png"]
    assert "which is right" in told["021.png"]
    assert {item.kind: item.mask_sha256 is not None for item in report.snapshot.labelled} == {
        "good": False,
        "scratch": True,
    }


def test_near_copies_of_good_images_are_told_and_kept(datasets: Datasets) -> None:
    good(1, 2, 3)
    with Image.open("good/001.png") as image:
        image.save("good/lossy.jpg", quality=95)
    report = ingest(datasets, "good")
    assert (report.added, report.near) == (4, [("001.png", "lossy.jpg")])
    assert any("001.png and lossy.jpg" in line for line in report.lines(Path("good")))


def test_pictures_of_nothing_are_refused_with_the_reason(datasets: Datasets) -> None:
    good(1)
    Image.new("RGB", (64, 64), (9, 9, 9)).save("good/dark.png")
    assert ingest(datasets, "good").refused == [(Path("good/dark.png"), UNIFORM)]
    Image.new("RGB", (64, 64), (9, 9, 9)).save(put("black/a.png", b""))
    with pytest.raises(DatasetError, match=r"black/a\.png: every pixel has the same value"):
        ingest(datasets, "black")


def test_a_file_larger_than_any_image_may_be_is_refused_unread(datasets: Datasets) -> None:
    good(1)
    with Path("good/huge.png").open("wb") as file:
        file.truncate(1 << 36)  # a hole of 64 GB
    ((path, reason),) = ingest(datasets, "good").refused
    assert path.name == "huge.png"
    assert "68,719,476,736 bytes, the limit is" in reason


def test_a_folder_may_itself_be_a_link(datasets: Datasets) -> None:
    good(1, 2)
    Path("today").symlink_to("good")
    assert ingest(datasets, "today").added == 2


def test_single_files_that_are_called_defective_are_left_out(datasets: Datasets) -> None:
    good(1, 2)
    put("good/ng_003.png", texture(3, spot=True))
    report = ingest(datasets, "good")
    assert (report.added, report.left_out) == (2, {NAMED: [Path("good/ng_003.png")]})


NAMES = ["Prüfung 1 – gut.png", "測試.PNG", "a b  c.Png", "🙂.png", "x" * 200 + ".png", "#1%20.png", "'quote\".png",
         "-dash.png", "new\nline.png", "tab\t.png", "[bracket]*.png", "[red]x.png"]  # fmt: skip


def test_any_name_survives_and_a_product_stays_readable(datasets: Datasets) -> None:
    Path("good").mkdir()
    for seed, name in enumerate(NAMES):
        put(f"good/{name}", texture(seed))
    Path(os.fsdecode(b"good/pr\xfcfung.png")).write_bytes(texture(90))
    Path(os.fsdecode(b"good/besch\xe4digt.png")).write_bytes(b"not an image")
    report = ingest(datasets, "good")
    assert {item.name for item in datasets.latest("bottle").good} == {*NAMES, "pr\\xfcfung.png"}
    assert len(report.refused) == 1
    assert ingest(datasets, "good").snapshot == report.snapshot


@pytest.mark.parametrize(
    ("name", "stored"), [("a\udcfc.png", "a\\xfc.png"), ("ü.png", "ü.png"), ("a\ud800.png", "a\\ud800.png")]
)
def test_a_name_is_stored_as_text(name: str, stored: str) -> None:
    assert stored_name(name) == stored


def test_latest_does_not_move_to_a_snapshot_that_does_not_read_back(
    datasets: Datasets, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ingest(datasets, good(1, 2)).snapshot
    put_object = store.put
    with monkeypatch.context() as faulty:
        faulty.setattr(store, "put", lambda key, data, *_: put_object(key, data[:-9] if "/snapshots/" in key else data))
        with pytest.raises(DatasetError, match="damaged"):
            ingest(datasets, good(3, folder="more"))
    assert datasets.latest("bottle") == before
    assert len(ingest(datasets, "more").snapshot.good) == 3


def test_a_folder_that_brings_nothing_is_an_error_for_a_product_that_has_images(datasets: Datasets) -> None:
    before = ingest(datasets, good(1, 2)).snapshot
    put("broken/a.png", b"no image")
    with pytest.raises(DatasetError, match=r"broken/a\.png: the first bytes"):
        ingest(datasets, "broken")
    assert datasets.latest("bottle") == before


def twelve_bits(seed: int, bits: int = 12) -> bytes:
    """A 16-bit PNG in which a camera fills fewer bits."""
    gray = np.asarray(Image.open(io.BytesIO(texture(seed))).convert("L")).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(gray << (bits - 8) | gray >> (16 - bits)).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_whose_depth_nobody_states_are_refused_with_what_to_set(datasets: Datasets) -> None:
    for seed in range(3):
        put(f"mono12/{seed}.png", twelve_bits(seed))
    with pytest.raises(DatasetError, match=r"no usable image .* fit\.bit_depth to what the camera fills"):
        ingest(datasets, "mono12")
    reading = Reading(bit_depth=12)
    report = datasets.ingest(Path("mono12"), "bottle", limits=ImageLimits(), reading=reading)
    assert (report.added, report.refused) == (3, [])
    put("more/8.png", texture(9))
    put("more/12.png", twelve_bits(10))
    report = datasets.ingest(Path("more"), "bottle", limits=ImageLimits(), reading=reading)
    assert report.added == 1
    ((path, reason),) = report.refused
    assert path.name == "8.png"
    assert "have 12 bits a sample (fit.bit_depth), this is one of 8" in reason


def test_the_same_scene_at_12_and_at_8_bits_is_one_picture(datasets: Datasets) -> None:
    put("given.png", texture(1))
    put("a/none.txt", b"")
    Image.open("given.png").convert("L").save("a/1.png")
    ingest(datasets, "a")
    put("b/1.png", twelve_bits(1))
    report = datasets.ingest(Path("b"), "bottle", limits=ImageLimits(), reading=Reading(bit_depth=12))
    assert (report.added, report.copies) == (0, 1)


def test_images_of_another_range_than_the_others_are_told(datasets: Datasets) -> None:
    reading = Reading(bit_depth=12)
    for seed in range(6):
        put(f"photos/{seed}.png", twelve_bits(seed))
    put("photos/ten.png", twelve_bits(7, bits=10))
    report = datasets.ingest(Path("photos"), "bottle", limits=ImageLimits(), reading=reading)
    assert [name for name, _ in report.ranges] == ["ten.png"]
    (line,) = [line for line in report.lines(Path("photos")) if "another range" in line]
    assert "ten.png (4." in line
    assert "another bit depth" in line
    put("later/8.png", twelve_bits(8))
    assert not datasets.ingest(Path("later"), "bottle", limits=ImageLimits(), reading=reading).ranges
