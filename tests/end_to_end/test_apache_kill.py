"""A replica dies in mid-replay, on Apache Kafka."""

import pytest

from tests.end_to_end.kill import kill_in_mid_replay
from tests.end_to_end.plant import Plant

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]


def test_a_killed_replica_loses_and_doubles_nothing(apache_plant: Plant) -> None:
    assert apache_plant.broker.aborts_hidden
    ledger = kill_in_mid_replay(apache_plant, images=1000)
    assert ledger.missing == 0
    assert ledger.doubled == 0
    assert sum(ledger.times_seen[image_id] for image_id in ledger.sent) == 1000
    assert ledger.without_mask() == 0
