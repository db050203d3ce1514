"""What lies in a folder is taken or named with its reason, whatever it is."""

import os
from pathlib import Path
from typing import Any

import pytest

from jobs.fitting.datasets.folders import DANGLING, LINKED, SERVICE, SPECIAL, UNREADABLE, examples, image_type, walk
from jobs.fitting.datasets.snapshots import DatasetError
from tests.pipeline.tiny import texture

IMAGE = texture(1)


def put(*paths: str, data: bytes = IMAGE) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)


def names(paths: list[Path]) -> set[str]:
    return {str(path.relative_to("good")) for path in paths}


def test_every_suffix_of_an_image_is_taken_and_others_are_named_with_their_suffix() -> None:
    put(*(f"good/a{suffix}" for suffix in (".jpg", ".JPEG", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp")))
    put("good/b.gif", "good/c.gif", "good/d.jp2", "good/e.jpg.bak", "good/f.raw")
    found = walk(Path("good"))
    assert len(found.images) == 9
    left = {reason.split(":")[0]: names(paths) for reason, paths in found.left_out.items()}
    assert left == {".gif": {"b.gif", "c.gif"}, ".jp2": {"d.jp2"}, ".bak": {"e.jpg.bak"}, ".raw": {"f.raw"}}


def test_a_file_without_a_suffix_is_taken_where_it_begins_like_an_image() -> None:
    put("good/image_0001")
    put("good/README", data=b"read me")
    put("good/empty", data=b"")
    found = walk(Path("good"))
    assert names(found.images) == {"image_0001"}
    assert [(reason.split(":")[0], names(paths)) for reason, paths in found.left_out.items()] == [
        ("no suffix", {"README", "empty"})
    ]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_an_image_is_known_by_its_first_bytes(form: str) -> None:
    assert image_type(texture(1, form=form)[:16]) == f"image/{form.lower()}"
    assert image_type(b"GIF89a") is None


def test_hidden_folders_thumbnails_and_junk_are_never_taken() -> None:
    hidden = {".thumbnails", "@eaDir", ".ipynb_checkpoints", "__MACOSX", "#recycle", "Thumbnails", "$RECYCLE.BIN"}
    put("good/deep/a.png", *(f"good/deep/{name}/b.png" for name in hidden))
    put("good/._a.png", "good/.DS_Store", "good/Thumbs.db", "good/desktop.ini")
    found = walk(Path("good"))
    assert names(found.images) == {"deep/a.png"}
    junk = {"._a.png", ".DS_Store", "Thumbs.db", "desktop.ini"}
    assert {reason: names(paths) for reason, paths in found.left_out.items()} == {
        SERVICE: {f"deep/{name}" for name in hidden} | junk
    }


def test_links_to_files_are_followed_and_others_are_named() -> None:
    put("elsewhere/a.png", "good/b.png")
    Path("good/link.png").symlink_to(Path("elsewhere/a.png").absolute())
    Path("good/monday").symlink_to(Path("elsewhere").absolute())
    Path("good/gone.png").symlink_to("nowhere.png")
    Path("good/circle.png").symlink_to("circle.png")
    found = walk(Path("good"))
    assert names(found.images) == {"b.png", "link.png"}
    assert {reason: names(paths) for reason, paths in found.left_out.items()} == {
        LINKED: {"monday"},
        DANGLING: {"gone.png", "circle.png"},
    }


def test_what_is_neither_a_file_nor_a_folder_is_named_and_never_opened() -> None:
    put("good/a.png")
    os.mkfifo("good/pipe.png")
    assert {reason: names(paths) for reason, paths in walk(Path("good")).left_out.items()} == {SPECIAL: {"pipe.png"}}


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of folders that may not be listed; for root may list all, whatever their mode says."""
    names: set[str] = set()
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return names


def test_a_folder_below_that_may_not_be_read_is_named_and_the_rest_is_taken(forbidden: set[str]) -> None:
    put("good/a.png", "good/locked/b.png")
    forbidden.add("locked")
    found = walk(Path("good"))
    assert names(found.images) == {"a.png"}
    assert {reason: names(paths) for reason, paths in found.left_out.items()} == {UNREADABLE: {"locked"}}


def test_a_folder_that_may_not_be_read_itself_is_an_error(forbidden: set[str]) -> None:
    put("good/a.png")
    forbidden.add("good")
    with pytest.raises(DatasetError, match="good can't be read: Permission denied"):
        walk(Path("good"))


def test_examples_are_three_and_a_count() -> None:
    paths = [Path(f"good/{number}.gif") for number in range(5)]
    assert examples(paths, Path("good")) == "0.gif, 1.gif, 2.gif and 2 more"
    assert examples(paths[:1], Path("good")) == "0.gif"
