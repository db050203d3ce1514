"""What people agree on, into the dataset: good parts may be fitted on, defective ones judge and never are.

An image that came this way is named for its event. Collected again it is left as it is; where an answer has changed it
is labelled anew, and where people agree no more it is taken out again.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw

from jobs.fitting.datasets import GOOD, Datasets, Item, Snapshot
from jobs.fitting.datasets.ingest import IngestReport
from jobs.past.reproduce import Gone, fetch_image
from pipeline.contracts.events import Box, SourceOffset
from pipeline.history import History, answers, event
from pipeline.history.queries import plain
from pipeline.settings import Settings
from pipeline.storage.store import ObjectStore

EVENT = re.compile(r"[0-9a-f]{32}")
DEFECT = "defect"
"""Kind of a defect of which nobody has said the kind."""


@dataclass
class Opinion:
    """What all who are not unsure say of a part."""

    good: bool
    kind: str = DEFECT
    boxes: list[Box] = field(default_factory=list)


@dataclass
class Collected:
    """report: of what was ingested; None where nothing was. told: what a person should know of that. removed: images
    whose answers don't hold any more. gone: why images can't be had.
    """

    report: IngestReport | None = None
    told: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    conflicts: int = 0


def collect(
    settings: Settings,
    store: ObjectStore,
    history: History,
    product: str,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> Collected:
    """Bring the product's dataset to what people say.

    Raises:
        DatasetError: the product's latest snapshot is damaged.
        HistoryUnavailable, BrokerUnavailable, StoreUnavailable: no answer; collect again.
    """
    datasets = Datasets(store)
    before = datasets.latest_or_empty(product)
    opinions, conflicts = _opinions(history, product)
    found = Collected(conflicts=conflicts)
    here = {Path(item.name).stem: item for item in before.items if EVENT.fullmatch(Path(item.name).stem)}
    lapsed = {name: item for name, item in here.items() if name not in opinions}
    if lapsed:
        datasets.publish(product, lambda latest: _without(latest, {item.sha256 for item in lapsed.values()}))
        found.removed = sorted(lapsed)
    fitted = {item.sha256 for item in before.good}
    wanted = {
        name: opinion
        for name, opinion in opinions.items()
        if name not in here or not _says(here[name], fitted, opinion)
    }
    with tempfile.TemporaryDirectory() as folder:
        written = 0
        for number, (name, opinion) in enumerate(sorted(wanted.items()), 1):
            on_image(number, len(wanted))
            try:
                _write(Path(folder), settings, store, history, name, opinion, relabelled=name in here)
                written += 1
            except Gone as error:
                found.gone.append(str(error))
        if written:
            reading = settings.fit_options(product).reading
            limits = settings.limits.images
            found.report = datasets.ingest(Path(folder), product, limits=limits, reading=reading)
            found.told = list(found.report.lines(Path(folder)))
    return found


def _opinions(history: History, product: str) -> tuple[dict[str, Opinion], int]:
    """By event id, where people agree; and of how many parts they don't."""
    found: dict[str, Opinion] = {}
    conflicts: set[str] = set()
    for row in reversed(answers(history, product)):
        if row["answer"] == "unsure":
            continue
        if row["conflict"]:
            conflicts.add(row["event_id"])
            continue
        opinion = found.setdefault(row["event_id"], Opinion(row["answer"] == "good"))
        if row["kind"]:
            opinion.kind = _folder(row["kind"])
        opinion.boxes += [Box.model_validate(box) for box in plain(row)["boxes"]]
    return found, len(conflicts)


def _folder(kind: str) -> str:
    """A kind as the name of a folder; never that of good parts."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", kind).strip("_-")[:64]
    return name if name and name.lower() != GOOD else DEFECT


def _says(item: Item, fitted: set[str], opinion: Opinion) -> bool:
    """Whether the dataset has it as people say."""
    if opinion.good:
        return item.kind == GOOD
    marked = bool(item.mask_sha256) or not opinion.boxes
    return item.sha256 not in fitted and item.kind == opinion.kind and marked


def _without(snapshot: Snapshot, gone: set[str]) -> Snapshot:
    good, labelled = (
        tuple(item for item in items if item.sha256 not in gone) for items in (snapshot.good, snapshot.labelled)
    )
    return snapshot.model_copy(update={"good": good, "labelled": labelled})


def _write(
    folder: Path,
    settings: Settings,
    store: ObjectStore,
    history: History,
    name: str,
    opinion: Opinion,
    *,
    relabelled: bool,
) -> None:
    """The image, and the boxes as its mask, in MVTec AD layout. What was labelled before is labelled still.

    Raises:
        Gone: it can't be had.
    """
    row = event(history, name)
    if row is None:
        raise Gone(f"the event {name} is not in the history any more (history.keep_days)")
    source = SourceOffset(topic=row["source_topic"], partition=row["source_partition"], offset=row["source_offset"])
    data = fetch_image(settings, store, name, row["image_id"], source)
    place = "train/good" if opinion.good and not relabelled else f"test/{GOOD if opinion.good else opinion.kind}"
    path = folder / place / f"{name}.png"  # what it is, its bytes say
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if not opinion.good and opinion.boxes:
        mask = Image.new("L", (row["width"], row["height"]))
        for box in opinion.boxes:
            ImageDraw.Draw(mask).rectangle((box.x, box.y, box.x + box.width - 1, box.y + box.height - 1), fill=255)
        path = folder / "ground_truth" / opinion.kind / f"{name}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.save(path)
