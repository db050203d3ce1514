"""The gate before a promotion: a challenger serves only if it is no worse, and a refusal says why.

Judged on images that neither version was fitted on: the good images that the champion's fit held out (a challenger
never sees them either, for the hash of an image decides), copies of them with faint made-up defects
(model/measures/probe.py), and labelled images where there are any. Both versions see the same copies, so that their
difference has an interval, and only one that is told apart from chance refuses a challenger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from jobs.fitting.area import out_of_sight
from jobs.fitting.datasets import GOOD, Datasets, Item, Snapshot
from jobs.fitting.datasets.masks import read_mask
from model import Engine, Frame, ImageRejected, Manifest, image_auroc
from model.measures.probe import PROBE_IMAGES, Sensitivity, lead, spoiled
from model.measures.proportions import percent_interval, share_interval
from pipeline.settings import Gate, Settings

_SEED_DIGITS = 16
"""Of an image's sha256: what is made up on it is the same whichever other images are judged with it."""


@dataclass(frozen=True)
class Judged:
    """How one version did on the gate's images. Rates and AUROCs are shares of 1; None where nothing could be told.

    sensitivity: AUROC of made-up defects, as probe has it image by image, for the images of probed (sha256) in turn.
    float32, score_shift_sd: of an int8 version, the same before it was quantised, and how far held-out scores moved, in
    deviations of these; None where a version of before tells it otherwise.
    """

    held_out: int
    false_reject_rate: float
    sensitivity: float
    labelled_auroc: float | None
    probe: Sensitivity | None = field(default=None, compare=False, repr=False)
    probed: tuple[str, ...] = field(default=(), compare=False, repr=False)
    float32: "Judged | None" = None
    score_shift_sd: float | None = None


@dataclass
class Verdict:
    """Whether the challenger may serve, and every reason why not."""

    accepted: bool
    reasons: list[str] = field(default_factory=list)
    challenger: Judged | None = None
    champion: Judged | None = None

    def line(self) -> str:
        return "accepted" if self.accepted else "refused: " + "; ".join(self.reasons)


class Judge:
    """Scores the gate's images with any version, through the engine that serves them."""

    def __init__(self, engine: Engine, float32: Engine, datasets: Datasets, settings: Settings) -> None:
        """float32: an engine that scores int8 versions as they were before."""
        self._engine, self._float32, self._datasets, self._settings = engine, float32, datasets, settings

    def judge(self, product: str, version: str, held_out: Sequence[Item], labelled: Sequence[Item]) -> Judged:
        """Score ``version`` on held-out good images, their spoiled twins, and labelled images."""
        quantisation = self._engine.manifest(f"{product}/{version}").quantisation
        judged = self._judge(self._engine, product, version, held_out, labelled)
        if quantisation is None:
            return judged
        float32 = self._judge(self._float32, product, version, held_out, labelled)
        return replace(judged, float32=float32, score_shift_sd=quantisation.score_shift_sd)

    def _judge(
        self, engine: Engine, product: str, version: str, held_out: Sequence[Item], labelled: Sequence[Item]
    ) -> Judged:
        key = f"{product}/{version}"
        manifest = engine.manifest(key)
        read = self._frames(product, held_out[:PROBE_IMAGES], manifest)
        good = [frame for _, frame in read]
        scores = _scores(engine, good, key)
        cover, size = manifest.cover(), manifest.preprocessing.size
        hidden = cover.hidden if cover else None
        copies = []
        for item, frame in read:  # the same defects for every version that counts the same places
            rng = np.random.default_rng(int(item.sha256[:_SEED_DIGITS], 16))
            copies.append(_scores(engine, spoiled(frame, rng, size, hidden), key))
        probe = Sensitivity.of(scores, copies) if good else None
        frames, kinds = self._labelled(product, labelled, manifest)
        truth = _scores(engine, frames, key)
        both = any(kinds) and not all(kinds)
        return Judged(
            held_out=len(good),
            false_reject_rate=float(np.mean([score >= 1.0 for score in scores])) if scores else 0.0,
            sensitivity=probe.value if probe else float("nan"),
            labelled_auroc=float(image_auroc(truth, kinds)) if both else None,
            probe=probe,
            probed=tuple(item.sha256 for item, _ in read),
        )

    def flagged(self, product: str, version: str, images: Sequence[bytes]) -> list[int]:
        """Indexes of the images that ``version`` finds defective (NotOK).

        Raises:
            model.ImageRejected: it can't take one of them.
        """
        key = f"{product}/{version}"
        manifest = self._engine.manifest(key)
        frames = [manifest.read(data, self._settings.limits.images) for data in images]
        scored = self._engine.score(frames, [key] * len(frames))
        return [index for index, one in enumerate(scored) if one.verdict == "NotOK"]

    def _frames(self, product: str, items: Sequence[Item], manifest: Manifest) -> list[tuple[Item, Frame]]:
        frames = []
        for item in items:
            try:
                frame = manifest.read(self._datasets.image(product, item), self._settings.limits.images)
            except ImageRejected:  # it was readable when it was ingested: limits or the ignored area have changed since
                continue
            frames.append((item, frame))
        return frames

    def _labelled(self, product: str, items: Sequence[Item], manifest: Manifest) -> tuple[list[Frame], list[bool]]:
        """Frames of the labelled images that can be read, and which of them are defective.

        Those whose defect lies wholly in the version's ignored area say nothing of it.
        """
        seen = [item for item in items if not self._out_of_sight(product, item, manifest)]
        read = self._frames(product, seen, manifest)
        return [frame for _, frame in read], [item.kind != GOOD for item, _ in read]

    def _out_of_sight(self, product: str, item: Item, manifest: Manifest) -> bool:
        data = self._datasets.mask(product, item) if manifest.ignore else None
        return data is not None and out_of_sight(read_mask(data), manifest.ignore)


def _scores(engine: Engine, frames: Sequence[Frame], key: str) -> list[float]:
    return [one.normalised_score for one in engine.score(frames, [key] * len(frames))]


def decide(challenger: Judged, champion: Judged | None, gate: Gate) -> Verdict:
    """The rules, on figures alone.

    A first version has no champion to beat; it must still tell spoiled images from good ones and not reject good ones.
    """
    verdict = Verdict(True, challenger=challenger, champion=champion)
    if challenger.held_out == 0:
        verdict.reasons.append("there is no held-out good image to judge it by")
    # With n held-out images, one rejected already is a rate of 1/n: a single one is never a reason.
    limit = max(gate.max_false_reject_rate, 1.5 / max(1, challenger.held_out))
    if champion:
        limit = max(limit, champion.false_reject_rate + gate.rate_margin)
    if challenger.false_reject_rate > limit:
        verdict.reasons.append(
            f"it rejects {challenger.false_reject_rate:.1%} of {challenger.held_out} held-out good images "
            f"(limit {limit:.1%}){_uncertainty(challenger)}"
        )
    if champion:
        verdict.reasons += _less_sensitive(challenger, champion, "it", gate.sensitivity_margin)
    elif challenger.sensitivity < gate.min_sensitivity:
        verdict.reasons.append(
            f"it tells made-up defects from good images with AUROC {challenger.sensitivity:.3f} (limit "
            f"{gate.min_sensitivity:.3f}; 0.5 is blind)"
        )
    if champion and challenger.labelled_auroc is not None and champion.labelled_auroc is not None:
        floor = champion.labelled_auroc - gate.auroc_margin
        if challenger.labelled_auroc < floor:
            verdict.reasons.append(
                f"AUROC on labelled images is {challenger.labelled_auroc:.3f} (the champion's is "
                f"{champion.labelled_auroc:.3f}, limit {floor:.3f})"
            )
    verdict.reasons += _lost_in_int8(challenger, gate)
    verdict.accepted = not verdict.reasons
    return verdict


def _lost_in_int8(judged: Judged, gate: Gate) -> list[str]:
    """Why an int8 version is too far from what it was in float32."""
    if judged.float32 is None:
        return []
    reasons = []
    if judged.score_shift_sd is None:
        reasons.append(
            "its manifest does not tell how far int8 moves held-out scores in deviations of these; fit it anew"
        )
    elif judged.score_shift_sd > gate.int8_score_shift:
        reasons.append(
            f"int8 moves held-out scores by {judged.score_shift_sd:.2f} of their deviation in the median (limit "
            f"{gate.int8_score_shift:.2f})"
        )
    lost = _less_sensitive(judged, judged.float32, "int8", gate.int8_auroc_margin)
    reasons += [f"{reason}; fit with precision fp32" for reason in lost]
    ours, theirs = judged.labelled_auroc, judged.float32.labelled_auroc
    if ours is not None and theirs is not None and ours < theirs - gate.int8_auroc_margin:
        reasons.append(
            f"int8 lowers the AUROC on labelled images from {theirs:.4f} to {ours:.4f} (by "
            f"{gate.int8_auroc_margin:.4f} at most); fit with precision fp32"
        )
    return reasons


def _less_sensitive(one: Judged, other: Judged, name: str, margin: float) -> list[str]:
    """Why it sees less of what is made up: by more than the margin, whatever the chance of the images."""
    if one.probe is None or other.probe is None:
        return []
    # One may refuse images that the other takes: another ignored area, say.
    common = sorted(set(one.probed) & set(other.probed))
    if not common:
        return [f"{name} was tried on none of the images that the other version was, so nothing compares them"]
    ours = one.probe.among([one.probed.index(sha256) for sha256 in common])
    theirs = other.probe.among([other.probed.index(sha256) for sha256 in common])
    found = lead(ours, theirs)
    if found.high >= -margin:
        return []
    return [
        f"{name} lowers the AUROC on made-up defects from {theirs.value:.3f} to {ours.value:.3f}, by "
        f"{-found.mean:.3f} on {len(common)} images (95% interval {-found.high:.3f} to {-found.low:.3f}; {margin:g} "
        "may be lost)"
    ]


def _uncertainty(judged: Judged) -> str:
    """How sure the false-reject rate is, from so many images."""
    interval = share_interval(round(judged.false_reject_rate * judged.held_out), judged.held_out)
    return f", 95% interval {percent_interval(interval)}" if interval else ""


def new_items(snapshot: Snapshot, before: Snapshot) -> list[Item]:
    """Good images of ``snapshot`` that ``before`` did not have."""
    known = {item.sha256 for item in before.good}
    return [item for item in snapshot.good if item.sha256 not in known]
