"""What a folder means: good images alone, or good and labelled ones with their masks, in MVTec AD layout.

train/good/...                  good images to fit on
test/<kind>/...                 labelled ones, which judge; <kind> good, or that of the defect
ground_truth/<kind>/...         their masks (jobs/fitting/datasets/truth.py says under which names)
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.fitting.datasets.folders import SUFFIXES_TEXT, UNREADABLE, Files, examples, is_service, walk
from jobs.fitting.datasets.names import (
    clearly_says_defective,
    files_that_say_defective,
    says_defective,
    says_good,
    says_masks,
)
from jobs.fitting.datasets.snapshots import GOOD, DatasetError
from jobs.fitting.datasets.truth import Truth, companions

BESIDE = "masks that lie beside their images"
NAMED = "files whose names say that they are defective; rename those that are good"
OUTSIDE = f"outside of train/{GOOD}, test/<kind> and ground_truth/<kind>"
NO_KIND = "images of no kind; they belong in test/<kind>"
ORPHANS = "masks of no image that is there"


@dataclass(frozen=True)
class LocalImage:
    """A file to ingest, with its label and the files of its mask where it has one: of several, all are drawn in one."""

    path: Path
    kind: str
    labelled: bool
    masks: tuple[Path, ...] = ()


@dataclass
class Found:
    """A folder's images. left_out: reason -> paths. unmasked: why a defective image has no mask, where masks are."""

    images: list[LocalImage] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    unmasked: list[tuple[Path, str]] = field(default_factory=list)


def discover(folder: Path) -> list[LocalImage]:
    """The images of a folder in a fixed order, whatever they show: what a camera would see."""
    return survey(folder).images


def survey(folder: Path) -> Found:
    """The images of a folder with what their places say of them, and all that is left out.

    Raises:
        DatasetError: no such folder, no image in it, or images in MVTec layout somewhere below.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder that can be read")
    try:
        found = _in_layout(folder) if (folder / "train" / GOOD).is_dir() else _flat(folder)
    except OSError as error:
        raise DatasetError(f"{error.filename or folder} can't be read: {error.strerror}") from None
    if not found.images:
        raise DatasetError(f"{folder} holds no image ({SUFFIXES_TEXT}){_instead(found, folder)}")
    return found


def refuse_defective(folder: Path, product: str, found: Found) -> set[Path]:
    """Refuse a folder of good images whose names speak of defective ones; returns the files whose own names do.

    Raises:
        DatasetError: with the call that is meant instead.
    """
    flat = [image.path for image in found.images if not image.labelled]
    if (folder / "train" / GOOD).is_dir():
        folder = folder / "train" / GOOD
    elif says_masks(folder.absolute().name) or clearly_says_defective(folder.absolute().name):
        what = "masks" if says_masks(folder.absolute().name) else "defective parts"
        raise DatasetError(
            f"{folder} is named for {what}, and its images would be fitted on as good ones: ingest a folder "
            f"of good images; to let these judge a model, put them under test/<kind> beside train/{GOOD}"
        )
    places = sorted({place for path in flat for place in path.relative_to(folder).parents if place != Path()})
    for place in places:
        if says_masks(place.name):
            raise _refusal(folder, product, places, place, "holds masks, which")
        if says_defective(place.name):
            raise _refusal(folder, product, places, place, "is named for defective parts, which")
    _refuse_mixed(folder, product, places, flat)
    return files_that_say_defective(flat)


def _refuse_mixed(folder: Path, product: str, places: list[Path], flat: list[Path]) -> None:
    """Where one folder is called good and others beside it are not, nobody can tell what those hold."""
    for good in (place for place in places if says_good(place.name)):
        beside = [place for place in places if place.parent == good.parent and not says_good(place.name)]
        loose = [path for path in flat if path.parent == folder / good.parent]
        if beside or loose:
            other = folder / beside[0] if beside else loose[0]
            what = f"lies beside {folder / good}; as it is not called good, it"
            raise _refusal(folder, product, places, other.relative_to(folder), what)


def _refusal(folder: Path, product: str, places: list[Path], place: Path, what: str) -> DatasetError:
    good = [other for other in places if says_good(other.name)]
    call = " and ".join(f"'linewatch ingest {folder / one} --product {product}'" for one in good[:3])
    return DatasetError(
        f"{folder} is taken as good images, but {folder / place} {what} would be fitted on as good: "
        + (f"run {call}" if good else "ingest the folders of good images below it, each by itself")
        + f"; what is defective judges a model from test/<kind> beside train/{GOOD}"
    )


def _refuse_layout_below(folder: Path) -> None:
    """A folder one level too high would bring defective images and masks in as good ones."""
    for path in sorted(folder.rglob("*")):
        if any(is_service(part) for part in path.relative_to(folder).parts):
            continue
        if path.name == "ground_truth" or (path.name == GOOD and path.parent.name in ("train", "test")):
            category = path.parent if path.name == "ground_truth" else path.parent.parent
            raise DatasetError(
                f"{folder} is taken as good images, but {path} belongs to labelled images in MVTec layout: "
                f"ingest {category} if it has train/{GOOD}, or name a folder of good images alone"
            )


def _flat(folder: Path) -> Found:
    _refuse_layout_below(folder)
    files = walk(folder)
    return Found([LocalImage(path, GOOD, labelled=False) for path in _without_masks(files)], files.left_out)


def _in_layout(folder: Path) -> Found:
    files = walk(folder / "train" / GOOD)
    found = Found([LocalImage(path, GOOD, labelled=False) for path in _without_masks(files)])
    test = folder / "test"
    if not test.is_dir() and (folder / "test_public").is_dir():  # as MVTec AD 2 has it
        test = folder / "test_public"
    places = [place for place in (*_folders(folder), *_folders(test)) if says_masks(place.name)]
    truth = Truth(places)
    for kind in _folders(test):
        if kind not in places:
            _labelled(kind, truth, files, found)
    _part_shared_masks(found)
    files.leave(NO_KIND, *(path for path in _entries(test) if path.is_file()))
    taken = {folder / "train", test, *places}
    files.leave(OUTSIDE, *(path for path in _entries(folder) if path not in taken))
    files.leave(OUTSIDE, *(path for path in _entries(folder / "train") if path.name != GOOD))
    files.leave(ORPHANS, *truth.unused())
    files.leave_all(truth.left_out)
    found.left_out = files.left_out
    return found


def _labelled(kind: Path, truth: Truth, files: Files, found: Found) -> None:
    """The images of ``test/<kind>``, each with its mask where it has one. OK, pass and the like are good, too."""
    try:
        here = walk(kind)
    except DatasetError:
        files.leave(UNREADABLE, kind)
        return
    label = GOOD if says_good(kind.name) else kind.name
    files.leave_all(here.left_out)
    beside = companions(here.images)
    images = [path for path in here.images if path not in {mask for masks in beside.values() for mask in masks}]
    for path in images:
        masks, trouble = truth.masks_of(path, kind)
        masks = masks or tuple(beside.get(path, ()))
        if trouble and not masks and label != GOOD:
            found.unmasked.append((path, trouble))
        found.images.append(LocalImage(path, label, labelled=True, masks=masks))


def _part_shared_masks(found: Found) -> None:
    """A mask that two images could mean is neither's."""
    meant = Counter(mask for image in found.images for mask in image.masks)
    for index, image in enumerate(found.images):
        shared = [mask for mask in image.masks if meant[mask] > 1]
        if shared:
            found.images[index] = replace(image, masks=())
            found.unmasked.append((image.path, f"{shared[0]} could be the mask of {meant[shared[0]]} images"))


def _without_masks(files: Files) -> list[Path]:
    """Images but not the masks among them, which are left out."""
    masks = {mask for beside in companions(files.images).values() for mask in beside}
    files.leave(BESIDE, *sorted(masks))
    return [path for path in files.images if path not in masks]


def _instead(found: Found, folder: Path) -> str:
    """What the folder holds where it holds no image."""
    held = [f"{examples(paths, folder)} ({reason})" for reason, paths in found.left_out.items()]
    return f", only {'; '.join(held)}" if held else ""


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, but for what systems leave there."""
    return sorted(path for path in folder.iterdir() if not is_service(path.name)) if folder.is_dir() else []
