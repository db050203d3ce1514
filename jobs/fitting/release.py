"""From fitted versions to a serving champion: judge, promote by compare-and-swap, announce."""

import logging

from jobs.fitting.datasets import DatasetError, Datasets, Item, Snapshot
from jobs.fitting.gate import Judge, Verdict, decide, new_items
from jobs.session.terminal import printable
from model import ImageRejected, Manifest
from pipeline.contracts.broker import Outgoing
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import MODEL_RELEASED, Release
from pipeline.errors import BrokerError
from pipeline.kafka.clients import publish_one
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from pipeline.storage.registry import Alias, Champion, Registry
from pipeline.storage.store import ObjectStore
from pipeline.stream.inspector import make_engine

log = logging.getLogger(__name__)
_NAMED = 3
"""Held-out images that are named."""


class Releases:
    """Judges challengers and promotes those that pass."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self._settings = settings
        self.registry = Registry(store)
        self.datasets = Datasets(store)
        engine, float32 = (make_engine(settings, self.registry, float32=form) for form in (False, True))
        self.judge = Judge(engine, float32, self.datasets, settings)

    def consider(self, product: str, version: str, *, force: bool = False) -> Verdict:
        """Promote ``version`` if it passes the gate, or in any case where ``force`` is set.

        Raises:
            ObjectConflict: someone else changed the champion in the meantime.
        """
        alias = self.registry.champion_or_none(product)
        if alias and alias.champion.version == version:
            return Verdict(True, ["it is the champion already"])
        verdict = Verdict(True) if force else self._judge(product, version, alias)
        if verdict.accepted:
            reason = "forced past the gate" if force else "passed the gate"
            self.promote(product, version, alias, reason)
        return verdict

    def highest_held_out(self, manifest: Manifest) -> str:
        """Which held-out good images placed the threshold, by their names; empty for a version that doesn't tell."""
        snapshot = self._snapshot(manifest.product, manifest.dataset_digest)
        names = {item.sha256: item.name for item in snapshot.good}
        told = [
            f"{printable(names.get(sha256, sha256[:12]))} ({score:.2f} of it)"
            for sha256, score in manifest.highest_held_out(_NAMED)
        ]
        if not told:
            return ""
        return f"the threshold was set by {', '.join(told)}: look at them, for an odd one lets defects pass"

    def promote(self, product: str, version: str, expected: Alias | None, reason: str) -> Champion:
        champion = self.registry.promote(product, version, expected, reason)
        announce(self._settings, champion, expected.champion.version if expected else None)
        return champion

    def rollback(self, product: str) -> Champion:
        replaced = self.registry.champion(product).champion.version
        champion = self.registry.rollback(product)
        announce(self._settings, champion, replaced)
        return champion

    def screen(self, product: str, snapshot: Snapshot, blank: int = 0) -> list[str]:
        """Reasons why a fit on ``snapshot`` is not even begun: the champion flags too many of the new images.

        A retraining loop that labels its own images degrades without a sound; this is where it is heard.

        Args:
            blank: images that came with the new ones and show nothing. Ingest has left them out, and still they say
                that something is wrong with the camera.
        """
        alias = self.registry.champion_or_none(product)
        if not alias:
            return []
        champion = self.registry.manifest(product, alias.champion.version)
        before = self._snapshot(product, champion.dataset_digest)
        fresh = new_items(snapshot, before)
        if not fresh:
            return []
        images = [self.datasets.image(product, item) for item in fresh]
        try:
            flagged = self.judge.flagged(product, alias.champion.version, images)
        except ImageRejected as error:
            return [f"the champion can't judge the new images: {error}"]
        share = (len(flagged) + blank) / (len(fresh) + blank)
        if share <= self._settings.gate.max_flagged_share:
            return []
        return [
            f"the champion finds {len(flagged)} of {len(fresh)} new images defective"
            + (f", and {blank} more show nothing" if blank else "")
            + f" ({share:.0%}, limit {self._settings.gate.max_flagged_share:.0%}): the new images are spoiled, or the "
            "product has changed"
        ]

    def _judge(self, product: str, version: str, alias: Alias | None) -> Verdict:
        challenger = self.registry.manifest(product, version)
        snapshot = self.datasets.snapshot(product, challenger.dataset_digest or "")
        reference = challenger
        if alias:
            # What the champion held out was good enough to calibrate what serves today: the trusted yardstick.
            reference = self.registry.manifest(product, alias.champion.version)
            before = self._snapshot(product, reference.dataset_digest)
            items = {item.sha256: item for item in (*snapshot.good, *before.good)}
        else:
            items = {item.sha256: item for item in snapshot.good}
        held_out: list[Item] = [items[sha] for sha in reference.heldout_sha256 if sha in items]
        judged = self.judge.judge(product, version, held_out, snapshot.labelled)
        champion = self.judge.judge(product, alias.champion.version, held_out, snapshot.labelled) if alias else None
        verdict = decide(judged, champion, self._settings.gate)
        if alias:
            verdict.reasons += self.screen(product, snapshot)
            verdict.accepted = not verdict.reasons
        return verdict

    def _snapshot(self, product: str, digest: str | None) -> Snapshot:
        try:
            return self.datasets.snapshot(product, digest or "")
        except DatasetError:
            return Snapshot(product=product)


def announce(settings: Settings, champion: Champion, replaced: str | None) -> None:
    """Tell the releases topic. Replicas poll the alias too, so a silent broker only makes the swap a little later."""
    release = Release(
        product=champion.product,
        version=champion.version,
        previous=replaced,
        promoted_at=champion.promoted_at,
    )
    envelope = Envelope(
        id=f"{champion.product}-{champion.version}-{champion.promoted_at:%Y%m%dT%H%M%S%f}",
        source="/registry",
        type=MODEL_RELEASED,
        subject=champion.product,
        time=champion.promoted_at,
        content_type="application/json",
    )
    try:
        ensure_topics(settings)  # a fit may come before the first `serve`
        value = release.model_dump_json().encode()
        publish_one(settings, Outgoing(settings.topics.releases, champion.product.encode(), value, envelope.headers()))
    except BrokerError as error:
        log.warning("the release of %s was not announced: %s", champion.product, error)
