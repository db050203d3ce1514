"""A replica dies in mid-replay, on the fallback broker."""

import pytest

from tests.end_to_end.kill import kill_in_mid_replay
from tests.end_to_end.plant import Plant

pytestmark = [pytest.mark.servers, pytest.mark.ray]


def test_a_killed_replica_loses_nothing_and_doubles_only_equal_event_ids(tansu_plant: Plant) -> None:
    assert not tansu_plant.broker.aborts_hidden
    ledger = kill_in_mid_replay(tansu_plant, images=300)
    assert ledger.missing == 0
    assert ledger.without_mask() == 0
    assert all(len(identifiers) == 1 for identifiers in ledger.event_ids.values())
