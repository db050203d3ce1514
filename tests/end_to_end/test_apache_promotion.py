"""A champion changes while images flow."""

import itertools
import threading

import pytest

from jobs.demo.ledger import Ledger
from jobs.fitting.release import Releases
from tests.end_to_end.plant import Plant, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]


def test_promotion_and_rollback_lose_nothing_and_restart_nothing(apache_plant: Plant) -> None:
    pids = apache_plant.replica_pids()
    challenger = apache_plant.fit("twill", seed=7, steps=20)["twill"]
    champion = apache_plant.versions["twill"]
    releases = Releases(apache_plant.settings, apache_plant.store)
    ledger = apache_plant.ledger()
    camera = threading.Thread(target=lambda: apache_plant.send(ledger, "twill", fps=10, times=8, camera="/swap/cam"))
    camera.start()
    try:
        wait_for("first events", lambda: len(ledger.sent) - ledger.missing > 10)
        releases.consider("twill", challenger, force=True)
        wait_for("events of the challenger", lambda: versions_seen(ledger).count(challenger) > 10)
        releases.rollback("twill")
        wait_for("the old champion in events", lambda: versions_seen(ledger)[-1] == champion)
    finally:
        camera.join()
        ledger.settle()
        ledger.close()
    assert ledger.missing == 0
    assert ledger.doubled == 0
    order = versions_seen(ledger)
    changes = [order[0]] + [after for before, after in itertools.pairwise(order) if before != after]
    assert changes == [champion, challenger, champion]
    gap_s = longest_gap_at_a_swap_s(ledger)
    print(f"\nlongest gap at a swap: {gap_s:.2f} s, with an image every 0.10 s")  # noqa: T201
    assert gap_s <= 1.0
    assert pids
    assert apache_plant.replica_pids() == pids


def longest_gap_at_a_swap_s(ledger: Ledger) -> float:
    """Between the last event of one version and the first of the next, as a reader of committed events has them."""
    came = sorted((ledger.seen[one] for one in list(ledger.sent)), key=lambda seen: seen.event.source.offset)
    return max(
        (after.arrived - before.arrived).total_seconds()
        for before, after in itertools.pairwise(came)
        if before.event.model_version != after.event.model_version
    )


def versions_seen(ledger: Ledger) -> list[str]:
    """The version of each event so far, in the order in which the camera took its images."""
    ours = [ledger.seen[image_id].event for image_id in list(ledger.sent) if image_id in ledger.seen]
    events = sorted(ours, key=lambda event: event.source.offset)
    return [event.model_version for event in events]
