"""kill -9 of a replica in the middle of a replay, and the count afterwards."""

import threading
from contextlib import closing

from jobs.demo.ledger import Ledger
from jobs.fitting.datasets import discover
from tests.end_to_end.plant import Plant, wait_for


def kill_in_mid_replay(plant: Plant, images: int) -> Ledger:
    """Send ``images``, kill the replica after a third of the events, wait for the rest; the closed books."""
    with closing(plant.ledger()) as ledger:
        each = len([file for file in discover(plant.images / "flange") if file.labelled])
        times = images // each
        camera = threading.Thread(target=lambda: plant.send(ledger, "flange", fps=80, times=times, camera="/kill/cam"))
        camera.start()
        # Not all that the books have seen: they have earlier tests' images too.
        wait_for("a third of the events", lambda: len(ledger.sent) - ledger.missing > images // 3, 240)
        assert len(ledger.sent) - ledger.missing < images  # in the middle, or this shows nothing
        killed = plant.kill_replica()
        camera.join()
        ledger.settle(quiet_s=120)
    assert killed not in plant.replica_pids()
    assert len(ledger.sent) == images
    return ledger
