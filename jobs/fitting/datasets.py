"""Datasets in S3: images under their own hash, and immutable snapshots that list them.

datasets/<product>/images/<sha256>
datasets/<product>/masks/<sha256>
datasets/<product>/snapshots/<digest>.json      the digest is of the list itself
datasets/<product>/refused/<digest>.json        why the gate refused a fit on that snapshot
datasets/<product>/latest.json                  changed only by compare-and-swap
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from model import ImageLimits, ImageRejected, read_frame
from pipeline.contracts.names import ProductName, product_name
from pipeline.errors import LinewatchError, ObjectConflict, ObjectMissing
from pipeline.storage.store import ObjectStore

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
GOOD = "good"
Progress = Callable[[int, int], None]


class DatasetError(LinewatchError):
    pass


class Item(BaseModel):
    """One image. ``kind`` is "good" or the kind of its defect."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    name: str
    kind: str = GOOD
    mask_sha256: str | None = None


class Snapshot(BaseModel):
    """What a product's images were at one time. ``good`` is fitted on; ``labelled`` only ever judges."""

    model_config = ConfigDict(frozen=True)

    product: ProductName
    good: tuple[Item, ...] = ()
    labelled: tuple[Item, ...] = ()

    def text(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text()).hexdigest()


@dataclass(frozen=True)
class LocalImage:
    """A file to ingest, with its label and its mask where it has one."""

    path: Path
    kind: str
    labelled: bool
    mask: Path | None = None


@dataclass
class IngestReport:
    """What became of a folder."""

    snapshot: Snapshot
    added: int = 0
    known: int = 0
    refused: list[tuple[Path, str]] = field(default_factory=list)


class Datasets:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def ingest(
        self,
        folder: Path,
        product: str,
        *,
        limits: ImageLimits,
        accept: Callable[[bytes], str | None] | None = None,
        on_image: Progress | None = None,
    ) -> IngestReport:
        """Add a folder's images to the product's latest snapshot.

        A folder in MVTec AD layout (``train/good``, ``test/<kind>``, ``ground_truth``) brings good images and
        labelled ones; any other folder is taken as good images, subfolders included.

        Args:
            accept: a further check of each good image; a text refuses it with that reason.
            on_image: called with (done, of) after each file.

        Raises:
            DatasetError: the folder is unreadable or holds no usable image.
        """
        product_name(product)
        report = IngestReport(self.latest_or_empty(product))
        files = discover(folder)
        good = {item.sha256: item for item in report.snapshot.good}
        labelled = {item.sha256: item for item in report.snapshot.labelled}
        for count, file in enumerate(files, 1):
            try:
                data = file.path.read_bytes()
                read_frame(data, 32, limits)
                reason = accept(data) if accept and not file.labelled else None
            except (OSError, ImageRejected) as error:
                reason = str(error)
            if reason:
                report.refused.append((file.path, reason))
            else:
                target = labelled if file.labelled else good
                self._add(file, data, product, target, report)
            if on_image:
                on_image(count, len(files))
        if not good:
            raise DatasetError(f"{folder}: no usable image of a good part among {len(files)} files")
        for sha256 in set(labelled) & set(good):  # what judges must not be fitted on
            del good[sha256]
        report.snapshot = self._publish(
            Snapshot(product=product, good=_sorted(good.values()), labelled=_sorted(labelled.values()))
        )
        return report

    def _add(self, file: LocalImage, data: bytes, product: str, target: dict[str, Item], report: IngestReport) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in target:
            report.known += 1
            return
        self._store.put(f"datasets/{product}/images/{sha256}", data)
        mask_sha256 = None
        if file.mask:
            mask = file.mask.read_bytes()
            mask_sha256 = hashlib.sha256(mask).hexdigest()
            self._store.put(f"datasets/{product}/masks/{mask_sha256}", mask)
        target[sha256] = Item(sha256=sha256, name=file.path.name, kind=file.kind, mask_sha256=mask_sha256)
        report.added += 1

    def _publish(self, snapshot: Snapshot) -> Snapshot:
        """Write the snapshot and point ``latest`` at it; a concurrent ingest's images are merged in."""
        product = snapshot.product
        while True:
            key = f"datasets/{product}/latest.json"
            try:
                data, etag = self._store.get_with_etag(key)
                latest = self.snapshot(product, _digest(data, product))
                merged = {item.sha256: item for item in (*latest.good, *snapshot.good)}
                judging = {item.sha256: item for item in (*latest.labelled, *snapshot.labelled)}
                snapshot = Snapshot(
                    product=product,
                    good=_sorted(item for item in merged.values() if item.sha256 not in judging),
                    labelled=_sorted(judging.values()),
                )
            except ObjectMissing:
                etag = None
            self._store.put(f"datasets/{product}/snapshots/{snapshot.digest}.json", snapshot.text())
            try:
                self._store.put_if(key, json.dumps({"digest": snapshot.digest}).encode(), etag)
            except ObjectConflict:
                continue
            return snapshot

    def refuse(self, snapshot: Snapshot, reasons: list[str]) -> None:
        """Write down why a snapshot is not to be fitted again."""
        key = f"datasets/{snapshot.product}/refused/{snapshot.digest}.json"
        self._store.put(key, json.dumps({"reasons": reasons}).encode())

    def refusal(self, product: str, digest: str) -> list[str]:
        """The reasons of an earlier refusal of the very same images, if there was one."""
        try:
            return list(json.loads(self._store.get(f"datasets/{product}/refused/{digest}.json"))["reasons"])
        except ObjectMissing:
            return []

    def restore(self, snapshot: Snapshot, instead_of: Snapshot) -> None:
        """Point ``latest`` at an earlier snapshot again, unless someone has ingested more in the meantime.

        Images that ``instead_of`` added stay stored but unlisted.
        """
        if not snapshot.good:
            return
        key = f"datasets/{snapshot.product}/latest.json"
        data, etag = self._store.get_with_etag(key)
        if json.loads(data)["digest"] != instead_of.digest:
            return
        try:
            self._store.put_if(key, json.dumps({"digest": snapshot.digest}).encode(), etag)
        except ObjectConflict:
            return

    def snapshot(self, product: str, digest: str) -> Snapshot:
        """A snapshot by its digest, checked against it.

        Raises:
            DatasetError: it isn't there, or is not what its digest says.
        """
        try:
            text = self._store.get(f"datasets/{product_name(product)}/snapshots/{digest}.json")
            snapshot = Snapshot.model_validate_json(text)
        except ObjectMissing:
            raise DatasetError(f"{product} has no snapshot {digest[:12]}") from None
        except ValidationError:
            raise DatasetError(f"the snapshot {digest[:12]} of {product} is damaged") from None
        if snapshot.digest != digest:
            raise DatasetError(f"the snapshot {digest[:12]} of {product} is not what its digest says")
        return snapshot

    def latest(self, product: str) -> Snapshot:
        """The newest snapshot.

        Raises:
            DatasetError: nothing was ingested for the product yet.
        """
        try:
            pointer = self._store.get(f"datasets/{product_name(product)}/latest.json")
        except ObjectMissing:
            raise DatasetError(
                f"no images of {product!r} yet: bring some with 'linewatch ingest FOLDER --product {product}'"
            ) from None
        return self.snapshot(product, _digest(pointer, product))

    def latest_or_empty(self, product: str) -> Snapshot:
        try:
            return self.latest(product)
        except DatasetError:
            return Snapshot(product=product)

    def image(self, product: str, item: Item) -> bytes:
        return self._checked(f"datasets/{product}/images/{item.sha256}", item.sha256)

    def mask(self, product: str, item: Item) -> bytes | None:
        if item.mask_sha256 is None:
            return None
        return self._checked(f"datasets/{product}/masks/{item.mask_sha256}", item.mask_sha256)

    def _checked(self, key: str, sha256: str) -> bytes:
        try:
            data = self._store.get(key)
        except ObjectMissing:
            raise DatasetError(f"{key} is listed in a snapshot and gone from the store") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DatasetError(f"{key} is damaged: its sha256 is another")
        return data


def discover(folder: Path) -> list[LocalImage]:
    """The image files of a folder, in a fixed order, with labels and masks where the layout tells them.

    Raises:
        DatasetError: no such folder, no image in it, or defective images somewhere below that would pass as good.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder that can be read")
    try:
        if (folder / "train" / GOOD).is_dir():
            files = [LocalImage(path, GOOD, labelled=False) for path in _images(folder / "train" / GOOD)]
            files += list(_labelled(folder))
        else:
            _refuse_labelled_below(folder)
            files = [LocalImage(path, GOOD, labelled=False) for path in _images(folder)]
    except OSError as error:
        raise DatasetError(f"{folder} can't be read: {error.strerror}") from None
    if not files:
        raise DatasetError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))})")
    return files


def _refuse_labelled_below(folder: Path) -> None:
    """A folder one level too high would bring defective images and masks in as good ones."""
    for path in sorted(folder.rglob("*")):
        if path.name == "ground_truth" or (path.name == GOOD and path.parent.name in ("train", "test")):
            category = path.parent if path.name == "ground_truth" else path.parent.parent
            raise DatasetError(
                f"{folder} is taken as good images, but {path} belongs to labelled images in MVTec layout: "
                f"ingest {category} if it has train/{GOOD}, or name a folder of good images alone"
            )


def _labelled(folder: Path) -> Iterator[LocalImage]:
    """``test/<kind>/<stem>.*`` with ``ground_truth/<kind>/<stem>_mask.png`` where it exists."""
    kinds = sorted(path for path in (folder / "test").glob("*") if path.is_dir())
    for kind in kinds:
        for path in _images(kind):
            mask = folder / "ground_truth" / kind.name / f"{path.stem}_mask.png"
            yield LocalImage(path, kind.name, labelled=True, mask=mask if mask.is_file() else None)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _digest(pointer: bytes, product: str) -> str:
    try:
        return str(json.loads(pointer)["digest"])
    except (ValueError, KeyError, TypeError):
        raise DatasetError(f"datasets/{product}/latest.json is damaged: it names no snapshot") from None


def _sorted(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda item: item.sha256))
