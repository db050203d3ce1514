"""From a folder to a product's next snapshot: each image read, each mask understood, all that is left out told."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.fitting.datasets.folders import listed, told
from jobs.fitting.datasets.layout import NAMED, Found, LocalImage, refuse_defective, survey
from jobs.fitting.datasets.masks import encoded, marks_most, read_mask, read_truth
from jobs.fitting.datasets.merging import Merged, Taken, merge
from jobs.fitting.datasets.snapshots import GOOD, DatasetError, Item, Snapshot, stored_name
from jobs.fitting.datasets.store import SnapshotStore
from model import Frame, ImageLimits, ImageRejected, ImageTooLarge, Reading, read_frame
from model.images.copies import is_uniform, look, near_pairs, pixel_digest, times_darker
from model.images.reading import AS_THE_FILE_SAYS
from pipeline.contracts.names import product_name

Progress = Callable[[int, int], None]
ANOTHER_RANGE = 3.0
"""Two bits more or fewer are a factor of four; light that varies is mostly less."""
UNIFORM = "every pixel has the same value, so it shows no part: was the lens covered, or the light too bright?"


@dataclass
class IngestReport:
    """What became of a folder.

    refused: files that are no usable image. left_out: reason -> what else lies there and was not taken. masks: what is
    wrong with the mask of a labelled image. near: pairs of names of good images that are nearly the same. ranges: names
    of good images whose brightness is another than the others', and how many times darker they are.
    """

    snapshot: Snapshot
    added: int = 0
    known: int = 0
    copies: int = 0
    renewed: int = 0
    judging: list[Item] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    masks: list[tuple[Path, str]] = field(default_factory=list)
    near: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[tuple[str, float]] = field(default_factory=list)

    def lines(self, folder: Path) -> Iterator[str]:
        """What a person should know of what was not taken, or was taken with a doubt; in words, a line each."""
        for path, reason in self.refused:
            yield f"refused {path}: {reason}"
        yield from told(self.left_out, folder)
        for path, reason in self.masks:
            yield f"mask of {path}: {reason}"
        if self.judging:
            names = listed([f"{item.name} ({item.kind})" for item in self.judging])
            yield f"{len(self.judging)} good images are labelled too, so they judge and are not fitted on: {names}"
        if self.renewed:
            yield f"{self.renewed} known images have another label or mask now"
        if self.near:
            pairs = listed([f"{one} and {other}" for one, other in self.near])
            yield (
                f"good images that are nearly the same: {pairs}; where one is held out and the other is not, the "
                "threshold comes out too low"
            )
        if self.ranges:
            names = listed([f"{name} ({_compared(times)})" for name, times in self.ranges])
            yield (
                f"good images of another range than the product's others: {names}; are they of another bit depth, or "
                "was the light another? Take them out if they are not what cameras will send"
            )

    def count(self, merged: Merged) -> None:
        self.added, self.known, self.copies = len(merged.added), merged.known, merged.copies
        self.renewed, self.judging, self.snapshot = len(merged.renewed), merged.judging, merged.snapshot


class Datasets(SnapshotStore):
    """Each product's images: what is stored of them, and how a folder's come in."""

    def ingest(
        self,
        folder: Path,
        product: str,
        *,
        limits: ImageLimits,
        reading: Reading = AS_THE_FILE_SAYS,
        accept: Callable[[bytes], str | None] | None = None,
        on_image: Progress | None = None,
    ) -> IngestReport:
        """Add a folder's images to the product's latest snapshot.

        A folder in MVTec AD layout (``train/good``, ``test/<kind>``, ``ground_truth``) brings good images and
        labelled ones; any other folder is taken as good images, subfolders included.

        Args:
            reading: what the product's images mean where files don't say.
            accept: a further check of each good image; a text refuses it with that reason.
            on_image: called with (done, of) after each file.

        Raises:
            DatasetError: the folder is unreadable, holds no usable image, or is named as if it held defective ones
                where good ones are expected; or the product's latest snapshot is damaged. Nothing has changed then.
        """
        before = self.latest_or_empty(product_name(product))
        found = survey(folder)
        doubtful = refuse_defective(folder, product, found)
        report = IngestReport(before, left_out=found.left_out, masks=list(found.unmasked))
        reader = _Reader(self, product, before, limits, reading, accept, report, doubtful)
        taken = []
        for count, file in enumerate(found.images, 1):
            one = reader.read(file)
            if one:
                taken.append((file, one))
            if on_image:
                on_image(count, len(found.images))
        judged = _agreeing(taken, report)
        new = any(one.item.sha256 not in reader.known for one in judged)
        pixels = self._pixels_of(before, limits, reading) if new else {}

        def change(latest: Snapshot) -> Snapshot:
            merged = merge(latest, judged, pixels)
            if not judged or not merged.snapshot.good:
                raise DatasetError(_nothing_usable(folder, found, report))
            report.count(merged)
            report.near, report.ranges = _near(merged), _odd_ranges(merged)
            return merged.snapshot

        report.snapshot = self.publish(product, change)
        return report

    def _pixels_of(self, snapshot: Snapshot, limits: ImageLimits, reading: Reading) -> dict[str, str]:
        """File -> pixels, of items that were ingested before snapshots said so: their copies are to be recognised."""
        pixels = {}
        for item in snapshot.items:
            if item.pixels_sha256 is None:
                try:
                    data = self.image(snapshot.product, item)
                    frame = read_frame(data, 32, limits, tiled=True, reading=reading)
                except (DatasetError, ImageRejected):  # a fit says so, or the gate; it has no copies that we could tell
                    continue
                pixels[item.sha256] = pixel_digest(frame)
        return pixels


class _Reader:
    """From files to items, their images and masks stored on the way. What can't be used goes into the report."""

    def __init__(
        self,
        datasets: Datasets,
        product: str,
        before: Snapshot,
        limits: ImageLimits,
        reading: Reading,
        accept: Callable[[bytes], str | None] | None,
        report: IngestReport,
        doubtful: set[Path],
    ) -> None:
        self._datasets, self._product, self._limits = datasets, product, limits
        self._reading, self._accept, self._report, self._doubtful = reading, accept, report, doubtful
        self._masked = {item.sha256: item for item in before.labelled if item.mask_sha256}
        self.known = {sha256 for item in before.items for sha256 in (item.sha256, *item.copies)}

    def read(self, file: LocalImage) -> Taken | None:
        try:
            size = file.path.stat().st_size
            if size > self._limits.max_bytes:  # before it fills the memory
                raise ImageTooLarge(f"the file has {size:,} bytes, the limit is {self._limits.max_bytes:,}")
            data = file.path.read_bytes()
            frame = read_frame(data, 32, self._limits, tiled=True, reading=self._reading)
            reason = self._accept(data) if self._accept and not file.labelled else None
            if not reason and not file.labelled and is_uniform(frame):
                reason = UNIFORM
        except OSError as error:
            reason = f"can't be read: {error.strerror or error}"
        except ImageRejected as error:
            reason = str(error)
        if reason:
            self._report.refused.append((file.path, reason))
            return None
        if file.path in self._doubtful:
            self._report.left_out.setdefault(NAMED, []).append(file.path)
            return None
        sha256 = self._datasets._kept(self._product, "images", data)
        item = Item(
            sha256=sha256,
            name=stored_name(file.path.name),
            kind=stored_name(file.kind),
            mask_sha256=self._mask(file, frame, sha256),
            pixels_sha256=pixel_digest(frame),
            look=base64.b64encode(look(frame)).decode(),
        )
        return Taken(item, file.labelled)

    def _mask(self, file: LocalImage, frame: Frame, sha256: str) -> str | None:
        """The hash of the stored mask; None, and a line in the report, where there is none to be had."""
        if not file.masks:
            return None
        try:
            truth = read_truth(file.masks, frame.height, frame.width)
        except DatasetError as error:
            if file.kind != GOOD:  # of a good image, an empty one is as it should be
                self._report.masks.append((file.path, str(error)))
            return None
        if file.kind == GOOD:
            self._report.masks.append(
                (file.path, f"labelled good, but {file.masks[0]} marks a defect: which is right?")
            )
            return None
        if marks_most(truth):
            trouble = f"{file.masks[0]} was taken, and marks {truth.mean():.0%}: are black and white swapped?"
            self._report.masks.append((file.path, trouble))
        before = self._masked.get(sha256)
        if before is not None:
            try:  # stored by another program, or before masks were stored in one form, it may say the same
                stored = self._datasets.mask(self._product, before)
                if stored is not None and (read_mask(stored) == truth).all():
                    return before.mask_sha256
            except DatasetError:
                pass
        return self._datasets._kept(self._product, "masks", encoded(truth))


def _agreeing(taken: Sequence[tuple[LocalImage, Taken]], report: IngestReport) -> list[Taken]:
    """Without the pictures that the folder labels in two ways, which are refused: it can't be told which is right."""
    labels: dict[str, dict[str, Path]] = {}
    for file, one in taken:
        if one.labelled:
            labels.setdefault(one.item.picture, {}).setdefault(file.kind, file.path)
    agreeing = []
    for file, one in taken:
        others = [path for kind, path in labels.get(one.item.picture, {}).items() if one.labelled and kind != file.kind]
        if others:
            report.refused.append(
                (file.path, f"the same picture is labelled otherwise by {others[0]}: keep one of them")
            )
        else:
            agreeing.append(one)
    return agreeing


def _near(merged: Merged) -> list[tuple[str, str]]:
    """Pairs of good pictures that are nearly the same, one of them new. Of defective ones a small defect may be all."""
    new = {item.sha256 for item in merged.added}
    seen = [item for item in merged.snapshot.items if item.kind == GOOD and item.look]
    fresh = [item for item in seen if item.sha256 in new]
    pairs = near_pairs(*([base64.b64decode(item.look or "") for item in part] for part in (fresh, seen)))
    found = {}
    for ours, theirs in pairs:
        one, other = fresh[ours], seen[theirs]
        if one.sha256 != other.sha256:
            found[frozenset((one.sha256, other.sha256))] = tuple(sorted((one.name, other.name)))
    return sorted((first, second) for first, second in found.values())


def _odd_ranges(merged: Merged) -> list[tuple[str, float]]:
    """New good pictures so dark or so bright beside the product's others as one of other bits would be."""
    good = [item for item in merged.snapshot.good if item.look]
    looks = [base64.b64decode(item.look or "") for item in good]
    new = {item.sha256 for item in merged.added}
    odd = [
        (item.name, times)
        for item, times in zip(good, times_darker(looks), strict=True)
        if item.sha256 in new and not 1 / ANOTHER_RANGE < times < ANOTHER_RANGE
    ]
    return sorted(odd)


def _compared(times: float) -> str:
    return f"{times:.1f} times darker" if times > 1 else f"{1 / times:.1f} times brighter"


def _nothing_usable(folder: Path, found: Found, report: IngestReport) -> str:
    text = f"{folder}: no usable image of a good part among {len(found.images)} files"
    if report.refused:
        path, reason = report.refused[0]
        text += f"; of {path}: {reason}"
    return text
