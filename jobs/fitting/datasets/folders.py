"""The files below a folder: which of them are images, and what else lies there, by name and by reason."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.fitting.datasets.snapshots import DatasetError

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"}
SUFFIXES_TEXT = ", ".join(sorted(SUFFIXES))
# Folders and files that systems and viewers make: thumbnails and checkpoints look like images of the product.
SERVICE_FOLDERS = {"@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "lost+found", "__pycache__",
                   "system volume information", "thumbnails", "thumbs"}  # fmt: skip
SERVICE_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SIGNATURES = (
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/png", re.compile(rb"\x89PNG\r\n")),
    ("image/bmp", re.compile(rb"BM")),
    ("image/tiff", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
)

LINKED = "links to folders, which are not followed; ingest those by themselves"
DANGLING = "links that lead to no file"
SERVICE = "thumbnails, checkpoints and other hidden or system files"
UNREADABLE = "folders that can't be read"
SPECIAL = "neither files nor folders"


@dataclass
class Files:
    """What a folder holds. left_out: reason -> paths, of whatever is not taken."""

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave(self, reason: str, *paths: Path) -> None:
        if paths:
            self.left_out.setdefault(reason, []).extend(paths)

    def leave_all(self, left_out: dict[str, list[Path]]) -> None:
        for reason, paths in left_out.items():
            self.leave(reason, *paths)


def walk(folder: Path) -> Files:
    """All images below a folder, in a fixed order. Links to files are followed, links to folders are not.

    Raises:
        DatasetError: the folder itself can't be read.
    """
    found = Files()

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise DatasetError(f"{folder} can't be read: {error.strerror}")
        found.leave(UNREADABLE, Path(error.filename))

    for place, folders, names in os.walk(folder, onerror=unreadable):
        here, below = Path(place), []
        for name in sorted(folders):
            if is_service(name):
                found.leave(SERVICE, here / name)
            elif (here / name).is_symlink():
                found.leave(LINKED, here / name)
            else:
                below.append(name)
        folders[:] = below
        for name in names:
            _sort(here / name, found)
    found.images.sort()
    return found


def is_service(name: str) -> bool:
    """Whether a name is that of something hidden, or of what systems leave behind."""
    return name.startswith(".") or name.lower() in SERVICE_FOLDERS | SERVICE_FILES


def examples(paths: Sequence[Path], folder: Path) -> str:
    """The first few paths, within their folder, and how many more there are."""
    return listed([str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths])


def told(left_out: Mapping[str, Sequence[Path]], folder: Path) -> Iterator[str]:
    """What was left out, in words, a line for each reason."""
    for reason, paths in left_out.items():
        yield f"left out {len(paths)}: {examples(paths, folder)} ({reason})"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _sort(path: Path, found: Files) -> None:
    suffix = path.suffix.lower()
    if is_service(path.name):
        found.leave(SERVICE, path)
    elif not os.path.isfile(path):
        found.leave(DANGLING if path.is_symlink() else SPECIAL, path)
    elif suffix in SUFFIXES or (not suffix and _begins_like_an_image(path)):
        found.images.append(path)
    else:
        found.leave(f"{suffix or 'no suffix'}: not one of {SUFFIXES_TEXT}", path)


def image_type(head: bytes) -> str | None:
    """The content type that a file's first bytes speak of; None where they are no image's."""
    return next((kind for kind, signature in SIGNATURES if signature.match(head)), None)


def _begins_like_an_image(path: Path) -> bool:
    """Whether a file without a suffix is an image all the same: some cameras name them so."""
    try:
        with path.open("rb") as file:
            return image_type(file.read(16)) is not None
    except OSError:
        return False
