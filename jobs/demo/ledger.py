"""The demo's books: every image sent, every event and picture that came, and what follows from them."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from jobs.fitting.area import out_of_sight
from jobs.fitting.datasets import GOOD, DatasetError, LocalImage
from jobs.fitting.datasets.masks import encoded, read_truth
from jobs.line.follow import Follower, event_of, picture_of
from jobs.line.replay import Shot
from jobs.report import InspectedImage, ProductSummary, RegionBox
from model import Manifest, decode_heat_png, encode_mask_png, image_auroc, pixel_auroc
from pipeline.contracts.events import InspectionEvent
from pipeline.settings import Settings
from pipeline.storage.registry import Registry
from pipeline.storage.store import ObjectStore


@dataclass
class Sent:
    shot: Shot
    source: LocalImage
    product: str


@dataclass
class Seen:
    """What came for one image. ``arrived`` is when a reader of committed records had the event."""

    event: InspectionEvent
    arrived: datetime
    pictures: dict[str, bytes] = field(default_factory=dict)

    @property
    def latency_ms(self) -> float:
        return (self.arrived - self.event.times.captured).total_seconds() * 1000


class Ledger:
    """Follows events, masks and dead letters in a thread of its own while cameras run."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self._settings, self._store = settings, store
        self.sent: dict[str, Sent] = {}
        self.seen: dict[str, Seen] = {}
        self.times_seen: Counter[str] = Counter()
        self.event_ids: dict[str, set[str]] = {}
        self.deadletters: list[str] = []  # image ids, where the message had one
        self._pictures: dict[str, dict[str, bytes]] = {}
        self._manifests: dict[tuple[str, str], Manifest] = {}
        self._stop = threading.Event()
        topics = settings.topics
        self._follower = Follower(settings, topics.events, topics.masks, topics.deadletters, from_beginning=True)
        self._thread = threading.Thread(target=self._follow, name="ledger", daemon=True)
        self._thread.start()

    def send(self, shot: Shot, source: LocalImage, product: str) -> None:
        self.sent[shot.image_id] = Sent(shot, source, product)

    @property
    def missing(self) -> int:
        """Images sent that have neither event nor dead letter yet."""
        return len(self.sent.keys() - self.times_seen.keys() - set(self.deadletters))

    @property
    def doubled(self) -> int:
        return sum(count - 1 for count in self.times_seen.values())

    @property
    def _unpictured(self) -> int:
        """Events of which no picture has come so far: where a broker has no transactions, each comes by itself."""
        return len({seen.event.event_id for seen in list(self.seen.values())} - self._pictures.keys())

    def settle(self, quiet_s: float = 60.0) -> None:
        """Wait until every image is accounted for and every event has its pictures, or nothing more has come for
        ``quiet_s``.
        """
        known, since = (-1, -1), time.monotonic()
        while (self.missing or self._unpictured) and time.monotonic() - since < quiet_s:
            if (now := (len(self.times_seen), len(self._pictures))) != known:
                known, since = now, time.monotonic()
            time.sleep(0.1)
        time.sleep(1.0)  # a doubled event would come late

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._follower.close()
        for seen in self.seen.values():
            seen.pictures = self._pictures.get(seen.event.event_id, {})

    def _follow(self) -> None:
        topics = self._settings.topics
        for record in self._follower.follow(self._stop):
            if record.topic == topics.events:
                event = event_of(record)
                self.seen.setdefault(event.image_id, Seen(event, datetime.now(UTC)))
                self.event_ids.setdefault(event.image_id, set()).add(event.event_id)
                self.times_seen[event.image_id] += 1
            elif record.topic == topics.masks:
                identifier, kind, png = picture_of(record, self._store, self._settings)
                self._pictures.setdefault(identifier, {})[kind] = png
            else:
                names = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
                self.deadletters.append(names.get("ce_id", f"offset {record.offset}"))

    # What follows from the books

    def without_mask(self) -> int:
        """Events whose mask never came."""
        return sum(1 for seen in self.seen.values() if "mask" not in seen.pictures)

    def rows(self, product: str, ids: list[str]) -> list[InspectedImage]:
        rows = []
        for image_id in ids:
            sent, seen = self.sent[image_id], self.seen.get(image_id)
            if sent.product != product or seen is None:
                continue
            event = seen.event
            manifest = self._manifest(product, event.model_version)
            ignore = manifest.ignore
            rows.append(
                InspectedImage(
                    product=product,
                    image_id=image_id,
                    camera=event.camera,
                    image=sent.source.path.read_bytes(),
                    truth=sent.source.kind,
                    verdict=event.verdict,
                    normalised_score=event.normalised_score,
                    model_version=event.model_version,
                    regions=[RegionBox(**region.model_dump()) for region in event.regions],
                    mask_png=seen.pictures.get("mask", b""),
                    heat_png=seen.pictures.get("heat"),
                    truth_mask_png=_truth_png(sent.source, event),
                    latency_ms=seen.latency_ms,
                    reading=manifest.preprocessing.reading,
                    ignored_png=encode_mask_png(ignore.mask_HW * np.uint8(255)) if ignore else None,
                    out_of_sight=self._out_of_sight(seen),
                )
            )
        return rows

    def summary(self, product: str, ids: list[str]) -> ProductSummary:
        """The figures of one product, from the events as they came over the stream."""
        sent = [self.sent[i] for i in ids if self.sent[i].product == product]
        seen = [self.seen[s.shot.image_id] for s in sent if s.shot.image_id in self.seen]
        judged = [s for s in seen if not self._out_of_sight(s)]
        kinds = [self.sent[s.event.image_id].source.kind != GOOD for s in judged]
        verdicts = [s.event.verdict for s in judged]
        scores = [s.event.normalised_score for s in judged]
        latencies = [s.latency_ms for s in seen]
        version = seen[0].event.model_version if seen else ""
        manifest = self._manifest(product, version) if version else None
        return ProductSummary(
            product=product,
            model_version=version,
            images=len(sent),
            events=sum(self.times_seen[s.shot.image_id] for s in sent),
            false_rejects=sum(v == "NotOK" and not bad for v, bad in zip(verdicts, kinds, strict=True)),
            escapes=sum(v == "OK" and bad for v, bad in zip(verdicts, kinds, strict=True)),
            reviews=verdicts.count("NotDecidable"),
            good=kinds.count(False),
            defective=kinds.count(True),
            image_auroc=image_auroc(scores, kinds) if len(set(kinds)) == 2 else None,
            pixel_auroc=self._pixel_auroc(judged),
            images_per_s=_rate(seen),
            p50_ms=float(np.percentile(latencies, 50)) if latencies else None,
            p99_ms=float(np.percentile(latencies, 99)) if latencies else None,
            calibration=manifest.calibration.describe() if manifest else "",
            ignored_share=manifest.ignore.share if manifest and manifest.ignore else None,
        )

    def _manifest(self, product: str, version: str) -> Manifest:
        if (product, version) not in self._manifests:
            self._manifests[product, version] = Registry(self._store).manifest(product, version)
        return self._manifests[product, version]

    def _out_of_sight(self, seen: Seen) -> bool:
        """Whether its defect lies wholly where its version ignores the image."""
        source = self.sent[seen.event.image_id].source
        ignore = self._manifest(seen.event.product, seen.event.model_version).ignore
        return bool(ignore and source.masks and out_of_sight(_truth(source, ignore.height, ignore.width), ignore))

    def _pixel_auroc(self, seen: list[Seen]) -> float | None:
        """Pooled over the product's images, from the streamed heat maps; None without ground truth."""
        maps, masks = [], []
        for one in seen:
            source = self.sent[one.event.image_id].source
            heat = one.pictures.get("heat")
            if heat is None:
                continue
            heat_map = decode_heat_png(heat)
            mask = _truth(source, *heat_map.shape)
            if mask is None:
                continue
            ignore = self._manifest(one.event.product, one.event.model_version).ignore
            counted = ~ignore.mask_HW if ignore else np.ones(mask.shape, bool)
            maps.append(heat_map[counted])
            masks.append(mask[counted])
        return pixel_auroc(maps, masks) if any(mask.any() for mask in masks) else None


def _truth(source: LocalImage, height: int, width: int) -> np.ndarray | None:
    """Which pixels are defective: none of a good image; None where nobody drew them, or so that it can't be told."""
    if source.kind == GOOD:
        return np.zeros((height, width), bool)
    try:
        return read_truth(source.masks, height, width) if source.masks else None
    except DatasetError:  # ingest has said which and why
        return None


def _truth_png(source: LocalImage, event: InspectionEvent) -> bytes | None:
    mask = _truth(source, event.height, event.width) if source.masks else None
    return None if mask is None else encoded(mask)


def _rate(seen: list[Seen]) -> float | None:
    """Events a second between the first capture and the last event."""
    if len(seen) < 2:
        return None
    span = max(s.arrived for s in seen) - min(s.event.times.captured for s in seen)
    return len(seen) / max(span.total_seconds(), 1e-9)
