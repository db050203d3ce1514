"""How far a run of fits has come, seen from the command that waits for it."""

import threading
from collections.abc import Callable
from typing import Any

from jobs.session.progress import Beat


class Board:
    """An actor that holds the newest beat of a run."""

    def __init__(self) -> None:
        self._beat: tuple[str, str, int, int, float] | None = None

    def write(self, product: str, phase: str, step: int, steps: int, loss: float) -> None:
        self._beat = (product, phase, step, steps, loss)

    def read(self) -> tuple[str, str, int, int, float] | None:
        return self._beat


class Watcher:
    """Reads the board twice a second and passes new beats on."""

    def __init__(self, board: Any, on_beat: Callable[[Beat], None]) -> None:
        self._board, self._on_beat = board, on_beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fit-progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        import ray
        from ray.exceptions import RayError

        last = None
        while not self._stop.wait(0.5):
            try:
                beat = ray.get(self._board.read.remote(), timeout=5)
            except RayError:
                continue
            if beat and beat != last:
                last = beat
                self._on_beat(Beat(*beat))
