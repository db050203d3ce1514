"""Datasets in S3: images under their own hash, and immutable snapshots that list them.

datasets/<product>/images/<sha256>
datasets/<product>/masks/<sha256>
datasets/<product>/snapshots/<digest>.json      the digest is of the list itself
datasets/<product>/refused/<digest>.json        why the gate refused a fit on that snapshot
datasets/<product>/latest.json                  changed only by compare-and-swap
"""

import hashlib
import json
from collections.abc import Callable

from pydantic import ValidationError

from jobs.fitting.datasets.snapshots import DatasetError, Item, Snapshot
from pipeline.contracts.names import product_name
from pipeline.errors import ObjectConflict, ObjectMissing
from pipeline.storage.store import ObjectStore


class SnapshotStore:
    """What is stored of each product's images."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def products(self) -> list[str]:
        """Products that anything was ingested for."""
        keys = self._store.keys("datasets/")
        return sorted({key.split("/")[1] for key in keys if key.endswith("/latest.json") or "/snapshots/" in key})

    def latest(self, product: str) -> Snapshot:
        """The newest snapshot.

        Raises:
            DatasetError: nothing was ingested for the product yet, or what was is damaged.
        """
        snapshot, etag = self._pointed(product_name(product))
        if etag is None:
            raise DatasetError(
                f"no images of {product!r} yet: bring some with 'linewatch ingest FOLDER --product {product}'"
            )
        return snapshot

    def latest_or_empty(self, product: str) -> Snapshot:
        """The newest snapshot, or one of nothing where nothing was ingested yet.

        Raises:
            DatasetError: what was ingested is damaged. Nothing begins afresh in its place.
        """
        return self._pointed(product_name(product))[0]

    def snapshot(self, product: str, digest: str) -> Snapshot:
        """A snapshot by its digest, checked against it.

        Raises:
            DatasetError: it isn't there, or is not what its digest says.
        """
        mend = f"'linewatch datasets repair {product}' mends what can be mended"
        try:
            text = self._store.get(f"datasets/{product_name(product)}/snapshots/{digest}.json")
            snapshot = Snapshot.model_validate_json(text)
        except ObjectMissing:
            raise DatasetError(f"{product} has no snapshot {digest[:12]}: {mend}") from None
        except ValidationError:
            raise DatasetError(f"the snapshot {digest[:12]} of {product} is damaged: {mend}") from None
        if snapshot.digest != digest:
            raise DatasetError(f"the snapshot {digest[:12]} of {product} is not what its digest says: {mend}")
        return snapshot

    def publish(self, product: str, change: Callable[[Snapshot], Snapshot]) -> Snapshot:
        """Change the latest snapshot: write a new one, read it back, and only then point ``latest`` at it.

        Args:
            change: from the latest snapshot to the new one; called again where somebody else was faster.

        Raises:
            DatasetError: the latest snapshot is damaged, or what was written does not read back; nothing has changed.
        """
        while True:
            latest, etag = self._pointed(product)
            snapshot = change(latest)
            if etag is not None and snapshot == latest:
                return latest
            self.write(snapshot)
            try:
                self._point(product, snapshot.digest, etag)
            except ObjectConflict:
                continue
            return snapshot

    def write(self, snapshot: Snapshot) -> None:
        """Store a snapshot, without pointing ``latest`` at it, and read it back."""
        self._store.put(f"datasets/{snapshot.product}/snapshots/{snapshot.digest}.json", snapshot.text())
        self.snapshot(snapshot.product, snapshot.digest)

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
        latest, etag = self._pointed(snapshot.product)
        if latest.digest != instead_of.digest:
            return
        try:
            self._point(snapshot.product, snapshot.digest, etag)
        except ObjectConflict:
            return

    def image(self, product: str, item: Item) -> bytes:
        return self._checked(f"datasets/{product}/images/{item.sha256}", item.sha256)

    def mask(self, product: str, item: Item) -> bytes | None:
        if item.mask_sha256 is None:
            return None
        return self._checked(f"datasets/{product}/masks/{item.mask_sha256}", item.mask_sha256)

    def _kept(self, product: str, room: str, data: bytes) -> str:
        """Store bytes under their own hash, among the images or the masks; returns the hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        self._store.put(f"datasets/{product}/{room}/{sha256}", data)
        return sha256

    def _checked(self, key: str, sha256: str) -> bytes:
        try:
            data = self._store.get(key)
        except ObjectMissing:
            raise DatasetError(f"{key} is listed in a snapshot and gone from the store: {_mend(key)}") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DatasetError(f"{key} is damaged, its sha256 is another: {_mend(key)}")
        return data

    def _pointed(self, product: str) -> tuple[Snapshot, str | None]:
        """What ``latest`` points at, and its etag; nothing and None where there is none."""
        try:
            data, etag = self._store.get_with_etag(f"datasets/{product}/latest.json")
        except ObjectMissing:
            return Snapshot(product=product), None
        return self.snapshot(product, named_digest(data, product)), etag

    def _point(self, product: str, digest: str, etag: str | None) -> None:
        self._store.put_if(f"datasets/{product}/latest.json", json.dumps({"digest": digest}).encode(), etag)


def _mend(key: str) -> str:
    return f"'linewatch datasets repair {key.split('/')[1]}' takes it off the list"


def named_digest(pointer: bytes, product: str) -> str:
    """The digest in ``latest.json``.

    Raises:
        DatasetError: there is none.
    """
    try:
        return str(json.loads(pointer)["digest"])
    except (ValueError, KeyError, TypeError):
        raise DatasetError(
            f"datasets/{product}/latest.json is damaged, it names no snapshot: 'linewatch datasets repair {product}' "
            "mends it"
        ) from None
