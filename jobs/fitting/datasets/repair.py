"""A product whose latest snapshot can't be used: what can be saved of it, or the newest one that can be read."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from jobs.fitting.datasets.ingest import Datasets
from jobs.fitting.datasets.snapshots import DatasetError, Item, Snapshot, stored_name
from jobs.fitting.datasets.store import named_digest
from pipeline.contracts.names import product_name
from pipeline.errors import ObjectConflict, ObjectMissing
from pipeline.storage.store import ObjectStore


@dataclass(frozen=True)
class Kept:
    """A snapshot in the store. snapshot: None where it can't be read. refused: why a fit on it was, if it was."""

    digest: str
    written: datetime
    snapshot: Snapshot | None
    refused: list[str]


@dataclass
class Repair:
    """What was done. before: the digest that ``latest`` named, if any. lost: in words, a line each."""

    snapshot: Snapshot
    before: str | None
    trouble: str | None
    lost: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return self.snapshot.digest != self.before


class Repairs:
    """Looks at all that is stored of a product, and mends it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._datasets = store, Datasets(store)

    def snapshots(self, product: str) -> list[Kept]:
        """Every snapshot of the product, newest first; those that can't be read are among them."""
        prefix = f"datasets/{product_name(product)}/snapshots/"
        kept = []
        for key, written in self._store.written(prefix):
            digest = key.removeprefix(prefix).removesuffix(".json")
            kept.append(Kept(digest, written, self._readable(product, digest), self._refusal(product, digest)))
        # Of two written in one second the larger: ingests only ever add.
        return sorted(kept, key=lambda one: (one.written, len(one.snapshot.items) if one.snapshot else 0), reverse=True)

    def pointed(self, product: str) -> str | None:
        """The digest that ``latest`` names; None where there is none that could be one."""
        return _named(self._pointer(product)[0], product)

    def repair(self, product: str, on_image: Callable[[int, int], None] | None = None) -> Repair:
        """Point ``latest`` at a snapshot that can be used, with every image and mask of it checked.

        The latest one itself where all or some of it can be saved, else the newest that can be read and was not
        refused. Nothing is deleted.

        Raises:
            DatasetError: nothing was ingested for the product, no snapshot can be read, or somebody ingested meanwhile.
        """
        pointer, etag = self._pointer(product)
        before, trouble, lost = _named(pointer, product), None, list[str]()
        if etag is None and not self.snapshots(product):
            self._datasets.latest(product)  # says how to bring some
        try:
            snapshot = self._datasets.latest(product)
        except DatasetError as error:
            trouble = _without_advice(error)
            snapshot = self._saved(product, before, lost) or self._newest(product, lost)
        snapshot = self._whole(snapshot, lost, on_image)
        if not snapshot.good:
            raise DatasetError(f"no good image of {product} is left in the store: ingest them again")
        if snapshot.digest != before:
            self._datasets.write(snapshot)
            try:
                self._datasets._point(product, snapshot.digest, etag)
            except ObjectConflict:
                raise DatasetError(f"somebody ingested images of {product} meanwhile: run the repair again") from None
        return Repair(snapshot, before, trouble, lost)

    def _saved(self, product: str, digest: str | None, lost: list[str]) -> Snapshot | None:
        """What the latest snapshot still lists, where it is JSON at all."""
        if digest is None:
            return None
        try:
            text = self._store.get(f"datasets/{product}/snapshots/{digest}.json")
            if hashlib.sha256(text).hexdigest() != digest:  # nobody knows who wrote it
                return None
            values = json.loads(text)
            lists = {name: [_item(one, lost) for one in values[name]] for name in ("good", "labelled")}
        except (ObjectMissing, ValueError, KeyError, TypeError):
            return None
        good, labelled = ([item for item in lists[name] if item] for name in ("good", "labelled"))
        return Snapshot(product=product, good=tuple(good), labelled=tuple(labelled)) if good else None

    def _newest(self, product: str, lost: list[str]) -> Snapshot:
        readable = [one for one in self.snapshots(product) if one.snapshot]
        chosen = next((one for one in readable if not one.refused), readable[0] if readable else None)
        if chosen is None or chosen.snapshot is None:
            raise DatasetError(f"{product} has no snapshot that can be read: ingest its images again")
        lost.append(
            f"what was ingested after {chosen.written:%Y-%m-%d %H:%M:%S} UTC, when snapshot {chosen.digest[:12]} was "
            "written: ingest it again"
        )
        return chosen.snapshot

    def _whole(self, snapshot: Snapshot, lost: list[str], on_image: Callable[[int, int], None] | None) -> Snapshot:
        """The snapshot without images and masks that are gone or damaged."""
        good, labelled = set(snapshot.good), list[Item]()
        kept = list[Item]()
        for count, item in enumerate(snapshot.items, 1):
            try:
                self._datasets.image(snapshot.product, item)
            except DatasetError as error:
                lost.append(f"{item.name} ({item.kind}): {_without_advice(error)}")
                continue
            finally:
                if on_image:
                    on_image(count, len(snapshot.items))
            (kept if item in good else labelled).append(self._with_mask(snapshot.product, item, lost))
        return Snapshot(product=snapshot.product, good=tuple(kept), labelled=tuple(labelled))

    def _with_mask(self, product: str, item: Item, lost: list[str]) -> Item:
        try:
            self._datasets.mask(product, item)
        except DatasetError as error:
            lost.append(f"the mask of {item.name}: {_without_advice(error)}")
            return item.model_copy(update={"mask_sha256": None})
        return item

    def _pointer(self, product: str) -> tuple[bytes, str | None]:
        try:
            return self._store.get_with_etag(f"datasets/{product_name(product)}/latest.json")
        except ObjectMissing:
            return b"", None

    def _readable(self, product: str, digest: str) -> Snapshot | None:
        try:
            return self._datasets.snapshot(product, digest)
        except DatasetError:
            return None

    def _refusal(self, product: str, digest: str) -> list[str]:
        try:
            return self._datasets.refusal(product, digest)
        except (ValueError, KeyError, TypeError):
            return ["its reasons can't be read"]


def _without_advice(error: DatasetError) -> str:
    """The error's words but for the call to this very repair."""
    return str(error).partition(": '")[0]


def _named(pointer: bytes, product: str) -> str | None:
    try:
        return named_digest(pointer, product)
    except DatasetError:
        return None


def _item(values: dict[str, Any], lost: list[str]) -> Item | None:
    """An item of a snapshot that does not read as it is; names of bytes that are no UTF-8 are what breaks one."""
    try:
        names = {name: stored_name(values[name]) for name in ("name", "kind")}
        return Item.model_validate({**values, **names})
    except (ValidationError, KeyError, TypeError, AttributeError):
        lost.append(f"an entry that lists no image: {str(values)[:80]!r}")
        return None
