"""How far the fits of a run have come, in S3: any worker on any node goes on from there.

Ray Train's own checkpoints belong to one worker group. These belong to a product, so a group that died with its node
costs one interval, whoever takes the product over; and they travel by the store that all else travels by.
"""

import json

from jobs.fitting.task import Task
from model import FitOptions
from pipeline.errors import ObjectMissing
from pipeline.storage.store import ObjectStore


class Checkpoints:
    """Of one product in one run."""

    def __init__(self, store: ObjectStore, run: str, task: Task, options: FitOptions) -> None:
        self._store, self._folder = store, f"train/{run}/{task.product}"
        self._what = {"digest": task.digest, "ignore": task.ignore, "options": options.model_dump(mode="json")}

    def version(self) -> str | None:
        """The version that the run has made of these images by these options already; none: it has not."""
        try:
            done = json.loads(self._store.get(f"{self._folder}/done.json"))
        except ObjectMissing:
            return None
        return str(done.pop("version")) if done.items() >= self._what.items() else None

    def state(self) -> bytes | None:
        """The newest state to go on from (model.Fit.restore)."""
        try:
            return self._store.get(f"{self._folder}/state.safetensors")
        except ObjectMissing:
            return None

    def save(self, state: bytes) -> None:
        self._store.put(f"{self._folder}/state.safetensors", state)

    def finish(self, version: str) -> None:
        done = json.dumps({**self._what, "version": version}).encode()
        self._store.put(f"{self._folder}/done.json", done, "application/json")
        self._store.remove(f"{self._folder}/state.safetensors")
