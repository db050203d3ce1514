"""What a product's images are at one time: items, and immutable snapshots that list them."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.contracts.names import ProductName
from pipeline.errors import LinewatchError

GOOD = "good"
# Left out where an item has none: a snapshot of before they existed keeps its text, and so its digest.
LATER_FIELDS = ("pixels_sha256", "look", "copies")


class DatasetError(LinewatchError):
    pass


class Item(BaseModel):
    """One picture. ``kind`` is "good" or the kind of its defect.

    pixels_sha256: of the decoded pixels (model/images/copies.py). look: the picture in 16 x 16 gray levels, base64.
    copies: sha256 of other files of the same picture. Snapshots of before they existed have none of the three.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    name: str
    kind: str = GOOD
    mask_sha256: str | None = None
    pixels_sha256: str | None = None
    look: str | None = None
    copies: tuple[str, ...] = ()

    @property
    def picture(self) -> str:
        """What decides whether a good image is held out: its pixels, so that copies share a side.

        Of an item without, its file, as ever: what was held out stays so.
        """
        return self.pixels_sha256 or self.sha256


class Snapshot(BaseModel):
    """What a product's images were at one time. ``good`` is fitted on; ``labelled`` only ever judges."""

    model_config = ConfigDict(frozen=True)

    product: ProductName
    good: tuple[Item, ...] = ()
    labelled: tuple[Item, ...] = ()

    def text(self) -> bytes:
        values = self.model_dump(mode="json")
        for name in ("good", "labelled"):
            values[name] = [dict(_written(item)) for item in values[name]]
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text()).hexdigest()

    @property
    def items(self) -> tuple[Item, ...]:
        return (*self.good, *self.labelled)


def stored_name(name: str) -> str:
    """A file's name as JSON can hold it: bytes that are no UTF-8 become escapes, ``pr\\xfcfung.png``."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a character pair, which some file systems let through
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    """By hash, so that the digest is of the content and not of the way there."""
    return tuple(sorted(items, key=lambda item: item.sha256))


def _written(item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in item.items() if value or name not in LATER_FIELDS)
