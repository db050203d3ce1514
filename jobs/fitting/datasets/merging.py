"""What becomes of a folder's images beside those that a product has: new, known, copies, or renewed.

Two files of equal pixels are one picture. The first one stands for it, and the others are noted as its copies. A
picture that is labelled judges, and is never fitted on; so one that is both good and labelled counts as labelled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jobs.fitting.datasets.snapshots import GOOD, Item, Snapshot, in_order


@dataclass(frozen=True)
class Taken:
    """An image that was read, as the item that it would be."""

    item: Item
    labelled: bool


@dataclass
class Merged:
    """A snapshot with a folder's images in it. The lists have the items as they are in it.

    renewed: known ones with another label or mask. judging: good ones of this folder that are labelled, and so not
    fitted on.
    """

    snapshot: Snapshot
    added: list[Item] = field(default_factory=list)
    known: int = 0
    copies: int = 0
    renewed: list[Item] = field(default_factory=list)
    judging: list[Item] = field(default_factory=list)


def merge(latest: Snapshot, taken: Iterable[Taken], pixels: Mapping[str, str]) -> Merged:
    """The latest snapshot with what was taken.

    Args:
        pixels: sha256 of a file -> that of its pixels, for items of the snapshot that have none of their own.
    """
    items = {item.sha256: item for item in latest.items}
    labelled = {item.sha256 for item in latest.labelled}
    stands = {sha256: item.sha256 for item in latest.items for sha256 in (item.sha256, *item.copies)}
    shown = {item.pixels_sha256 or pixels.get(item.sha256, ""): item.sha256 for item in latest.items}
    merged = Merged(latest)
    added: set[str] = set()
    renewed: set[str] = set()
    judging: set[str] = set()
    for one in taken:
        at = stands.get(one.item.sha256) or shown.get(one.item.pixels_sha256 or one.item.sha256)
        if at is None:
            at = one.item.sha256
            items[at] = one.item
            shown[one.item.pixels_sha256 or at] = at
            added.add(at)
            if one.labelled:
                labelled.add(at)
        else:
            known = one.item.sha256 in stands
            merged.known += known
            merged.copies += not known
            before = items[at]
            if not known:
                items[at] = before.model_copy(update={"copies": tuple(sorted({*before.copies, one.item.sha256}))})
            if one.labelled:
                if at not in labelled or _says_otherwise(before, one.item):
                    renewed.add(at)
                labelled.add(at)
                items[at] = _relabelled(items[at], one.item)
            elif at in labelled:
                judging.add(at)
        stands[one.item.sha256] = at
    merged.snapshot = Snapshot(
        product=latest.product,
        good=in_order(item for sha256, item in items.items() if sha256 not in labelled),
        labelled=in_order(item for sha256, item in items.items() if sha256 in labelled),
    )
    merged.added = [items[sha256] for sha256 in sorted(added)]
    merged.renewed = [items[sha256] for sha256 in sorted(renewed - added)]
    merged.judging = [items[sha256] for sha256 in sorted(judging | (renewed & added))]
    return merged


def _says_otherwise(before: Item, now: Item) -> bool:
    return before.kind != now.kind or now.mask_sha256 not in (None, before.mask_sha256)


def _relabelled(before: Item, now: Item) -> Item:
    """With the label and the mask of now. A mask gives way to another one, and where the part is good after all."""
    mask = None if now.kind == GOOD else now.mask_sha256 or before.mask_sha256
    return before.model_copy(update={"kind": now.kind, "mask_sha256": mask})
