"""Where the masks of labelled images are found, under the names that people give them.

For ``test/scratch/007.png``, in ``ground_truth/scratch`` or in ``ground_truth`` itself: ``007_mask.*``, ``007.*``,
``007-mask.*``, ``007_gt.*``, ``mask_007.*``, or a folder ``007`` with a mask for each part of the defect, as MVTec
LOCO AD has it; or ``007_mask.*`` beside the image. Any suffix of an image will do.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs.fitting.datasets.folders import UNREADABLE, Files, walk
from jobs.fitting.datasets.names import says_good
from jobs.fitting.datasets.snapshots import DatasetError

BESIDE_SUFFIXES = ("_mask", "-mask", "_gt", "-gt")
FORMS = ("{}_mask", "{}", "{}-mask", "{}_gt", "{}-gt", "mask_{}")


class Truth:
    """The masks below some folders, by place and by name. left_out: reason -> paths."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._at: dict[Path, dict[str, list[Path]]] = {}
        self._used: set[Path] = set()
        files = Files()
        for folder in folders:
            try:
                here = walk(folder)
            except DatasetError:
                files.leave(UNREADABLE, folder)
                continue
            files.leave_all(here.left_out)
            files.images += here.images
        for path in files.images:
            self._at.setdefault(path.parent, {}).setdefault(path.stem.lower(), []).append(path)
        self._all, self.left_out = files.images, files.left_out

    def masks_of(self, image: Path, kind: Path) -> tuple[tuple[Path, ...], str]:
        """The files of an image's mask; where there is none, why. kind: the folder that the image lies below."""
        below = image.relative_to(kind).parent
        for folder in self._folders:
            own = folder / kind.name / below
            for place in (own,) if says_good(kind.name) else (own, folder / below):
                found, trouble = self._in(place, image.stem)
                if found or trouble:
                    return found, trouble
        return (), "no mask under its name" if self._folders else ""

    def unused(self) -> list[Path]:
        """Masks that belong to none of the images asked for."""
        return [path for path in self._all if path not in self._used]

    def _in(self, place: Path, stem: str) -> tuple[tuple[Path, ...], str]:
        here = self._at.get(place, {})
        for form in FORMS:
            masks = here.get(form.format(stem.lower()), [])
            if masks:
                self._used |= set(masks)
                if len(masks) > 1:
                    return (), f"more than one mask could be meant: {', '.join(path.name for path in masks)}"
                return tuple(masks), ""
        parts = tuple(sorted(path for masks in self._at.get(place / stem, {}).values() for path in masks))
        self._used |= set(parts)
        return parts, ""


def companions(images: Iterable[Path]) -> dict[Path, list[Path]]:
    """Of images in one folder, which are masks of others among them: ``007_mask.png`` beside ``007.png``."""
    images = list(images)
    named = {(path.parent, path.stem): path for path in images}
    masks: dict[Path, list[Path]] = {}
    for path in images:
        for suffix in BESIDE_SUFFIXES:
            stem = path.stem[: -len(suffix)]
            if path.stem.lower().endswith(suffix) and (path.parent, stem) in named:
                masks.setdefault(named[path.parent, stem], []).append(path)
    return masks
