"""A version's limits placed anew, by what it makes of good images in the form in which it serves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.engine.backend import Backend, LoadedStudent
from model.evidence.evidence import Evidence
from model.images.frames import Frame
from model.images.tiles import parts, whole
from model.manifest import Manifest, ModelBundle
from model.team import ALONE, Team
from model.verdict.scored import calibrated, peaks


def recalibrated(bundle: ModelBundle, backend: Backend, held_out: Sequence[Frame], team: Team = ALONE) -> ModelBundle:
    """held_out: frames as the network sees them, in their light already. Raises FitError, ModelError."""
    manifest = bundle.manifest
    maps = team.joined(raw_maps(backend, backend.load(bundle), manifest, held_out))
    evidence = Evidence.learned(peaks(maps)) if manifest.evidence else None
    target = manifest.calibration.target_false_reject_rate
    calibration, scores = calibrated(maps, evidence, manifest.cover(), target)
    anew = {"calibration": calibration, "evidence": evidence, "heldout_scores": scores}
    return ModelBundle(manifest.model_copy(update=anew), bundle.weights)


def raw_maps(backend: Backend, student: LoadedStudent, manifest: Manifest, frames: Sequence[Frame]) -> list[np.ndarray]:
    """Of each frame, [K, S / 4, S / 4] (Student.anomaly_maps), or of all of it with tiles."""
    size, tiled, cover = manifest.preprocessing.size, manifest.preprocessing.tiles, manifest.cover()

    def maps(frame: Frame) -> list[np.ndarray]:
        seen = parts(frame, size, tiled, cover)
        return [backend.begin(manifest, [part], [student])()[0] for part in seen]

    return [whole(maps(frame), frame, size, tiled, cover) for frame in frames]
